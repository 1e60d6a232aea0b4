//! What a call asks for, and the bytes of its answer: one JSON object, or a stream of pieces.

use memchr::memmem;
use serde_json::json;

use crate::settings::Settings;

/// What matters of a request's body. Read by searching: quotes inside of texts are escaped, so a key is found nowhere else.
pub struct Asked {
    /// `"stream": true`.
    pub stream: bool,
    /// `stream_options.include_usage`.
    pub include_usage: bool,
    /// How many choices.
    pub n: u64,
    /// Decides time and answer: of the key and, without one, of the body.
    pub hash: u64,
    /// Of the body: stands in the answer, so that a client shows that it read it.
    pub mark: u32,
    /// A quarter of the body's bytes.
    pub prompt_tokens: u64,
}

/// Reads a body.
pub fn asked(body: &[u8], key: Option<&str>) -> Asked {
    let mark = xxhash_rust::xxh3::xxh3_64(body);
    Asked {
        stream: value_of(body, b"\"stream\"").is_some_and(|value| value.starts_with(b"true")),
        include_usage: value_of(body, b"\"include_usage\"").is_some_and(|value| value.starts_with(b"true")),
        n: value_of(body, b"\"n\"").and_then(number).unwrap_or(1).max(1),
        hash: key.map_or(mark, |key| xxhash_rust::xxh3::xxh3_64(key.as_bytes())),
        mark: mark as u32,
        prompt_tokens: body.len() as u64 / 4,
    }
}

fn value_of<'a>(body: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    memmem::find_iter(body, name).find_map(|place| {
        let rest = body[place + name.len()..].trim_ascii_start();
        rest.strip_prefix(b":").map(<[u8]>::trim_ascii_start)
    })
}

fn number(text: &[u8]) -> Option<u64> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&text[..digits]).ok()?.parse().ok()
}

/// The text of one choice: the canned answer of the first rule that fits, or the mark and filler.
pub fn text(settings: &Settings, asked: &Asked, body: &[u8], choice: u64) -> String {
    for rule in &settings.answers {
        if !rule.choices.is_empty() && memmem::find(body, rule.contains.as_bytes()).is_some() {
            // The low bits decide the time.
            let place = (asked.hash >> 17).wrapping_add(choice) as usize % rule.choices.len();
            return rule.choices[place].clone();
        }
    }
    let mut text = format!("{:08x} ", asked.mark);
    let wanted = settings.answer_bytes.unwrap_or(400).max(9);
    while text.len() < wanted {
        text.push_str("and so the answer is forty two ");
    }
    text.truncate(wanted);
    text
}

fn usage(settings: &Settings, asked: &Asked) -> serde_json::Value {
    let output = settings.completion_tokens.unwrap_or(100) * asked.n;
    json!({"prompt_tokens": asked.prompt_tokens, "completion_tokens": output,
        "total_tokens": asked.prompt_tokens + output})
}

/// A whole answer's body.
pub fn whole(settings: &Settings, asked: &Asked, body: &[u8]) -> Vec<u8> {
    let choices: Vec<_> = (0..asked.n)
        .map(|index| {
            json!({"index": index, "finish_reason": "stop", "logprobs": null,
                "message": {"role": "assistant", "content": text(settings, asked, body, index), "refusal": null}})
        })
        .collect();
    json!({"id": format!("chatcmpl-{:08x}", asked.mark), "object": "chat.completion", "created": 1_700_000_000,
        "model": "bench", "choices": choices, "usage": usage(settings, asked), "system_fingerprint": "fp_bench"})
    .to_string()
    .into_bytes()
}

/// The events of a stream, one a piece; the last carries the usage and the end.
pub fn pieces(settings: &Settings, asked: &Asked, body: &[u8]) -> Vec<Vec<u8>> {
    let id = format!("chatcmpl-{:08x}", asked.mark);
    let event = |choices: serde_json::Value, usage: serde_json::Value| {
        let mut chunk = json!({"id": id, "object": "chat.completion.chunk", "created": 1_700_000_000,
            "model": "bench", "system_fingerprint": "fp_bench", "choices": choices});
        if asked.include_usage {
            chunk["usage"] = usage;
        }
        format!("data: {chunk}\n\n")
    };
    let count = settings.chunks.unwrap_or(40).max(1) as usize;
    let texts: Vec<Vec<char>> =
        (0..asked.n).map(|index| text(settings, asked, body, index).chars().collect()).collect();
    let mut pieces = Vec::with_capacity(count);
    for place in 0..count {
        let mut piece = String::new();
        for (index, text) in texts.iter().enumerate() {
            let part: String =
                text[text.len() * place / count..text.len() * (place + 1) / count].iter().collect();
            let mut delta = json!({"content": part});
            if place == 0 {
                delta["role"] = json!("assistant");
            }
            let reason = if place + 1 == count { json!("stop") } else { json!(null) };
            let choice = json!([{"index": index, "delta": delta, "finish_reason": reason, "logprobs": null}]);
            piece.push_str(&event(choice, json!(null)));
        }
        if place + 1 == count {
            if asked.include_usage {
                piece.push_str(&event(json!([]), usage(settings, asked)));
            }
            piece.push_str("data: [DONE]\n\n");
        }
        pieces.push(piece.into_bytes());
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Rule;

    #[test]
    fn a_body_is_read_however_it_is_spaced() {
        let plain =
            asked(br#"{"messages":[],"n":3,"stream":true,"stream_options":{"include_usage":true}}"#, None);
        assert_eq!((plain.n, plain.stream, plain.include_usage), (3, true, true));
        let spaced = asked(br#"{"messages": [], "n": 3, "stream": false}"#, None);
        assert_eq!((spaced.n, spaced.stream, spaced.include_usage), (3, false, false));
        let quoted = asked(br#"{"messages":[{"content":"say \"stream\":true and \"n\":9"}]}"#, None);
        assert_eq!((quoted.n, quoted.stream), (1, false));
    }

    #[test]
    fn the_key_decides_and_without_one_the_body() {
        assert_eq!(asked(b"a", Some("k")).hash, asked(b"b", Some("k")).hash);
        assert_ne!(asked(b"a", None).hash, asked(b"b", None).hash);
    }

    #[test]
    fn pieces_make_the_whole_answer() {
        let settings = Settings { chunks: Some(7), ..Settings::default() };
        let body = br#"{"stream":true,"stream_options":{"include_usage":true}}"#;
        let asked = asked(body, None);
        let pieces = pieces(&settings, &asked, body);
        assert_eq!(pieces.len(), 7);
        let mut said = String::new();
        for line in String::from_utf8(pieces.concat()).unwrap().lines() {
            let Some(data) = line.strip_prefix("data: ").filter(|data| *data != "[DONE]") else { continue };
            let event: serde_json::Value = serde_json::from_str(data).unwrap();
            if let Some(part) = event["choices"][0]["delta"]["content"].as_str() {
                said.push_str(part);
            } else {
                assert_eq!(event["usage"]["completion_tokens"], 100);
            }
        }
        assert_eq!(said, text(&settings, &asked, body, 0));
        assert!(pieces[6].ends_with(b"data: [DONE]\n\n"));
    }

    #[test]
    fn canned_answers_by_rule_and_hash() {
        let rule = Rule { contains: "lesson".into(), choices: vec!["a".into(), "b".into()] };
        let settings = Settings { answers: vec![rule], ..Settings::default() };
        let said: std::collections::BTreeSet<_> = (0..20)
            .map(|key| text(&settings, &asked(b"a lesson", Some(&format!("{key}"))), b"a lesson", 0))
            .collect();
        assert_eq!(said.len(), 2);
        assert_eq!(text(&settings, &asked(b"else", None), b"else", 0).len(), 400);
    }
}
