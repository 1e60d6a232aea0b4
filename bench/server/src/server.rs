//! The event loop: one thread, one epoll, a heap of deadlines.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::counts::{Call, Counts, epoch};
use crate::http::{self, Request};
use crate::latency;
use crate::limiter::{Limiter, Verdict};
use crate::reply;
use crate::settings::Settings;

const LISTENER: Token = Token(usize::MAX);

/// What a connection is about.
enum State {
    /// Waits for a request, or for the rest of one.
    Reading,
    /// The whole answer goes out at its deadline.
    Waiting(Vec<u8>, Answer),
    /// The next piece goes out at its deadline.
    Streaming(std::vec::IntoIter<Vec<u8>>, f64, Answer),
}

/// What is counted when an answer is complete.
struct Answer {
    tokens: u64,
    marks: u64,
    streamed: bool,
}

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    state: State,
    close: bool,
    /// A deadline of an earlier call of this place means nothing.
    generation: u64,
}

impl Connection {
    fn busy(&self) -> bool {
        !matches!(self.state, State::Reading)
    }
}

/// The server.
pub struct Server {
    poll: Poll,
    listener: TcpListener,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    deadlines: BinaryHeap<Reverse<(u64, usize, u64)>>,
    generation: u64,
    begun: Instant,
    first: Option<Instant>,
    settings: Settings,
    limiter: Limiter,
    counts: Counts,
}

impl Server {
    /// Takes over a listening socket.
    pub fn new(listener: std::net::TcpListener, settings: Settings) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let mut listener = TcpListener::from_std(listener);
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            listener,
            connections: Vec::new(),
            free: Vec::new(),
            deadlines: BinaryHeap::new(),
            generation: 0,
            begun: Instant::now(),
            first: None,
            limiter: Limiter::new(settings.limit.clone()),
            settings,
            counts: Counts::default(),
        })
    }

    /// Serves for ever.
    pub fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        loop {
            let wait = self.deadlines.peek().map(|Reverse((at, ..))| {
                Duration::from_nanos(at.saturating_sub(self.begun.elapsed().as_nanos() as u64))
            });
            match self.poll.poll(&mut events, wait) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &events {
                if event.token() == LISTENER {
                    self.accept()?;
                } else {
                    self.ready(event);
                }
            }
            let now = self.begun.elapsed().as_nanos() as u64;
            while self.deadlines.peek().is_some_and(|Reverse((at, ..))| *at <= now) {
                if let Some(Reverse((at, place, generation))) = self.deadlines.pop() {
                    self.due(at, place, generation);
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // A connection that was gone before it was taken.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            stream.set_nodelay(true)?;
            let place = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut stream, Token(place), interest)?;
            self.connections[place] = Some(Connection {
                stream,
                input: Vec::new(),
                output: Vec::new(),
                state: State::Reading,
                close: false,
                generation: 0,
            });
        }
    }

    fn ready(&mut self, event: &Event) {
        let place = event.token().0;
        let Some(connection) = self.connections[place].as_mut() else { return };
        let mut alive = true;
        if event.is_readable() || event.is_read_closed() {
            alive = fill(&mut connection.stream, &mut connection.input);
        }
        if alive && event.is_writable() {
            alive = self.flush(place);
        }
        if !alive || !self.advance(place) {
            self.drop(place);
        }
    }

    /// Answers what has arrived whole; false when the connection is over.
    fn advance(&mut self, place: usize) -> bool {
        loop {
            let Some(connection) = self.connections[place].as_mut() else { return true };
            if connection.busy() || connection.input.is_empty() {
                return true;
            }
            let request = match http::parse(&connection.input) {
                Ok(Some(request)) => request,
                Ok(None) => return true,
                Err(_) => return false,
            };
            connection.input.drain(..request.length);
            connection.close = request.close;
            if !self.answer(place, &request) {
                return false;
            }
        }
    }

    fn answer(&mut self, place: usize, request: &Request) -> bool {
        match (request.method.as_str(), request.path.split('?').next().unwrap_or("")) {
            ("POST", path) if path.ends_with("/chat/completions") => self.complete(place, request),
            ("POST", "/configure") => match serde_json::from_slice::<Settings>(&request.body) {
                Ok(settings) => {
                    self.limiter = Limiter::new(settings.limit.clone());
                    self.settings = settings;
                    // Calls still in flight from before would count as calls of now.
                    for other in 0..self.connections.len() {
                        if self.connections[other].as_ref().is_some_and(Connection::busy) {
                            self.drop(other);
                        }
                    }
                    self.counts = Counts::default();
                    self.first = None;
                    self.send(place, "200 OK", &[], b"{}")
                }
                Err(error) => {
                    let body = serde_json::json!({"error": {"message": error.to_string()}}).to_string();
                    self.send(place, "400 Bad Request", &[], body.as_bytes())
                }
            },
            ("GET", "/counts") => {
                let mut value = self.counts.json(request.path.ends_with("keys=1"));
                value["now"] = self.seconds().into();
                value["stranger"] = self.limiter.stranger_took.into();
                self.send(place, "200 OK", &[], value.to_string().as_bytes())
            }
            _ => self.send(place, "404 Not Found", &[], b"{\"error\":{\"message\":\"no such path\"}}"),
        }
    }

    fn complete(&mut self, place: usize, request: &Request) -> bool {
        if self.first.is_none() {
            self.first = Some(Instant::now());
            self.counts.first = epoch();
        }
        let now = self.seconds();
        let asked = reply::asked(&request.body, request.key.as_deref());
        let tokens = asked.prompt_tokens + self.settings.completion_tokens.unwrap_or(100) * asked.n;
        self.counts.requests += 1;
        let verdict = self.limiter.arrive(now, tokens as f64);
        let mut headers = Vec::new();
        self.limiter.headers(&mut headers);
        if let Verdict::Limited(wait) = verdict {
            self.counts.rate_limited += 1;
            if self.settings.limit.retry_after {
                let text =
                    format!("retry-after: {}\r\nretry-after-ms: {}\r\n", wait.ceil(), (wait * 1000.0).ceil());
                headers.extend_from_slice(text.as_bytes());
            }
            let body = br#"{"error":{"message":"Rate limit reached","type":"requests","code":"rate_limit_exceeded"}}"#;
            return self.send(place, "429 Too Many Requests", &headers, body);
        }
        let seconds = latency::seconds(&self.settings.latency, asked.hash);
        self.counts.last_admitted = now;
        self.counts.permitted_admitted = self.limiter.permitted(now);
        self.counts.in_flight += 1;
        self.counts.peak = self.counts.peak.max(self.counts.in_flight);
        if self.settings.record_keys {
            let key = request.key.clone().unwrap_or_else(|| format!("{:016x}", asked.hash));
            let call = self.counts.keys.entry(key).or_insert(Call {
                served: 0,
                latency: seconds,
                admitted: now,
                tokens,
            });
            call.served += 1;
            call.admitted = now;
        }
        let answer = Answer { tokens, marks: u64::from(asked.mark) * asked.n, streamed: asked.stream };
        self.generation += 1;
        let generation = self.generation;
        let at = self.begun.elapsed().as_nanos() as u64;
        let (state, first) = if asked.stream {
            let pieces = reply::pieces(&self.settings, &asked, &request.body);
            let step = seconds / pieces.len() as f64;
            let mut head =
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
                    .to_vec();
            head.extend_from_slice(&headers);
            head.extend_from_slice(b"\r\n");
            if !self.write(place, &head) {
                return false;
            }
            (State::Streaming(pieces.into_iter(), step, answer), step)
        } else {
            let body = reply::whole(&self.settings, &asked, &request.body);
            (State::Waiting(response("200 OK", &headers, &body), answer), seconds)
        };
        if let Some(connection) = self.connections[place].as_mut() {
            connection.state = state;
            connection.generation = generation;
        }
        let due = at + (first * 1e9) as u64;
        if first <= 0.0 && !asked.stream {
            self.due(due, place, generation);
        } else {
            self.deadlines.push(Reverse((due, place, generation)));
        }
        true
    }

    /// A deadline has passed: the answer, or its next piece, goes out.
    fn due(&mut self, at: u64, place: usize, generation: u64) {
        let Some(connection) = self.connections[place].as_mut() else { return };
        if connection.generation != generation {
            return;
        }
        let mut done = None;
        let bytes = match std::mem::replace(&mut connection.state, State::Reading) {
            State::Reading => return,
            State::Waiting(bytes, answer) => {
                done = Some(answer);
                bytes
            }
            State::Streaming(mut pieces, step, answer) => {
                let piece = pieces.next().unwrap_or_default();
                let mut bytes = format!("{:x}\r\n", piece.len()).into_bytes();
                bytes.extend_from_slice(&piece);
                bytes.extend_from_slice(b"\r\n");
                if pieces.len() == 0 {
                    bytes.extend_from_slice(b"0\r\n\r\n");
                    done = Some(answer);
                } else {
                    connection.state = State::Streaming(pieces, step, answer);
                    self.deadlines.push(Reverse((at + (step * 1e9) as u64, place, generation)));
                }
                bytes
            }
        };
        if let Some(answer) = done {
            let now = self.seconds();
            self.counts.in_flight = self.counts.in_flight.saturating_sub(1);
            self.counts.served += 1;
            self.counts.streamed += u64::from(answer.streamed);
            self.counts.tokens += answer.tokens;
            self.counts.marks += answer.marks;
            self.counts.last_served = now;
            self.counts.permitted_served = self.limiter.permitted(now);
        }
        if !self.write(place, &bytes) || !self.advance(place) {
            self.drop(place);
        }
    }

    fn send(&mut self, place: usize, status: &str, headers: &[u8], body: &[u8]) -> bool {
        self.write(place, &response(status, headers, body))
    }

    fn write(&mut self, place: usize, bytes: &[u8]) -> bool {
        if let Some(connection) = self.connections[place].as_mut() {
            connection.output.extend_from_slice(bytes);
        }
        self.flush(place)
    }

    fn flush(&mut self, place: usize) -> bool {
        let Some(connection) = self.connections[place].as_mut() else { return true };
        while !connection.output.is_empty() {
            match connection.stream.write(&connection.output) {
                Ok(0) => return false,
                Ok(count) if count == connection.output.len() => connection.output.clear(),
                Ok(count) => drop(connection.output.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        !(connection.close && !connection.busy())
    }

    fn drop(&mut self, place: usize) {
        if let Some(mut connection) = self.connections[place].take() {
            if connection.busy() {
                self.counts.in_flight = self.counts.in_flight.saturating_sub(1);
                self.counts.aborted += 1;
            }
            // Already gone for the system, too, in most cases.
            let _ = self.poll.registry().deregister(&mut connection.stream);
            self.free.push(place);
        }
    }

    fn seconds(&self) -> f64 {
        self.first.map_or(0.0, |first| first.elapsed().as_secs_f64())
    }
}

/// Reads all there is; false when the other side is gone.
fn fill(stream: &mut TcpStream, input: &mut Vec<u8>) -> bool {
    let mut block = [0; 32 * 1024];
    loop {
        match stream.read(&mut block) {
            Ok(0) => return false,
            Ok(count) => input.extend_from_slice(&block[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
}

fn response(status: &str, headers: &[u8], body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + headers.len() + 128);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_bytes());
    out.extend_from_slice(b"\r\ncontent-type: application/json\r\n");
    out.extend_from_slice(headers);
    out.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
    out.extend_from_slice(body);
    out
}
