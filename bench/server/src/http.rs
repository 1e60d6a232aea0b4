//! One HTTP/1.1 request out of a buffer, with a body of known length or in chunks.

/// Where the parts of a complete request lie.
#[derive(Debug)]
pub struct Request {
    /// GET, POST, …
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// The body, put together.
    pub body: Vec<u8>,
    /// `idempotency-key`, where there is one.
    pub key: Option<String>,
    /// The client wants the connection closed after the answer.
    pub close: bool,
    /// Bytes of the buffer that the request took.
    pub length: usize,
}

/// A request that cannot be read.
#[derive(Debug)]
pub struct Malformed;

/// The request at the beginning of `buffer`; None while it is not complete.
pub fn parse(buffer: &[u8]) -> Result<Option<Request>, Malformed> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Request::new(&mut headers);
    let start = match head.parse(buffer).map_err(|_| Malformed)? {
        httparse::Status::Complete(start) => start,
        httparse::Status::Partial => return Ok(None),
    };
    let (mut length, mut chunked, mut close, mut key) = (0, false, false, None);
    for header in head.headers.iter() {
        let value = std::str::from_utf8(header.value).unwrap_or("").trim();
        if header.name.eq_ignore_ascii_case("content-length") {
            length = value.parse().map_err(|_| Malformed)?;
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            chunked = value.eq_ignore_ascii_case("chunked");
        } else if header.name.eq_ignore_ascii_case("connection") {
            close = value.eq_ignore_ascii_case("close");
        } else if header.name.eq_ignore_ascii_case("idempotency-key") {
            key = Some(value.to_owned());
        }
    }
    let rest = &buffer[start..];
    let (body, taken) = if chunked {
        match unchunk(rest)? {
            Some(found) => found,
            None => return Ok(None),
        }
    } else if rest.len() < length {
        return Ok(None);
    } else {
        (rest[..length].to_vec(), length)
    };
    Ok(Some(Request {
        method: head.method.unwrap_or("").to_owned(),
        path: head.path.unwrap_or("").to_owned(),
        body,
        key,
        close,
        length: start + taken,
    }))
}

/// A body in chunks and the bytes it took; None while it is not complete.
fn unchunk(mut rest: &[u8]) -> Result<Option<(Vec<u8>, usize)>, Malformed> {
    let whole = rest.len();
    let mut body = Vec::new();
    loop {
        let (start, size) = match httparse::parse_chunk_size(rest).map_err(|_| Malformed)? {
            httparse::Status::Complete((start, size)) => {
                (start, usize::try_from(size).map_err(|_| Malformed)?)
            }
            httparse::Status::Partial => return Ok(None),
        };
        if rest.len() < start + size + 2 {
            return Ok(None);
        }
        body.extend_from_slice(&rest[start..start + size]);
        // Trailers are not read: no client here sends any.
        rest = &rest[start + size + 2..];
        if size == 0 {
            return Ok(Some((body, whole - rest.len())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_of_known_length_arrives_in_pieces() {
        let whole =
            b"POST /v1/x HTTP/1.1\r\nHost: h\r\nIdempotency-Key: k/1\r\nContent-Length: 4\r\n\r\nabcdGET";
        for cut in 0..whole.len() - 3 {
            assert!(parse(&whole[..cut]).unwrap().is_none(), "{cut}");
        }
        let request = parse(whole).unwrap().unwrap();
        assert_eq!((request.body.as_slice(), request.key.as_deref()), (&b"abcd"[..], Some("k/1")));
        assert_eq!(request.length, whole.len() - 3);
    }

    #[test]
    fn a_body_in_chunks_arrives_in_pieces() {
        let whole =
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\nX";
        for cut in 0..whole.len() - 1 {
            assert!(parse(&whole[..cut]).unwrap().is_none(), "{cut}");
        }
        let request = parse(whole).unwrap().unwrap();
        assert_eq!(request.body, b"abc0123456789");
        assert_eq!(request.length, whole.len() - 1);
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(parse(b"\x01\x02 nonsense\r\n\r\n").is_err());
    }
}
