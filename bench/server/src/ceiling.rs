//! `bench-ceiling PORT CALLS BODY_BYTES`: what the server alone can do, driven by blocking threads.
//!
//! Prints calls a second. The threads share the machine's cores with the server, so its own CPU time per call
//! (`server_cpu` in `GET /counts`) says where its ceiling is.

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

const THREADS: usize = 32;

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<usize> = std::env::args().skip(1).map(|word| word.parse()).collect::<Result<_, _>>()?;
    let [port, calls, bytes] = words[..] else { return Err("bench-ceiling PORT CALLS BODY_BYTES".into()) };
    let port = u16::try_from(port)?;
    let begin = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..THREADS).map(|_| scope.spawn(move || work(port, calls / THREADS, bytes))).collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().map_err(|_| "a thread panicked")?.map_err(|_| "a call failed")
        })
    })?;
    let seconds = begin.elapsed().as_secs_f64();
    writeln!(std::io::stdout(), "{:.0}", (calls / THREADS * THREADS) as f64 / seconds)?;
    Ok(())
}

fn work(port: u16, calls: usize, bytes: usize) -> std::io::Result<()> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    let body = format!(r#"{{"messages":[{{"role":"user","content":"{}"}}]}}"#, "a".repeat(bytes));
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    for _ in 0..calls {
        writer.write_all(request.as_bytes())?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        let mut answer = vec![0; length];
        reader.read_exact(&mut answer)?;
    }
    Ok(())
}
