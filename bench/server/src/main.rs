//! `bench-server [--port 0] [--settings JSON]`: a mock of an OpenAI-compatible provider, for the engine's bench.
//!
//! Prints `listening on PORT`. `POST /configure` takes new settings and resets the counts; `GET /counts` tells them.

mod counts;
mod http;
mod latency;
mod limiter;
mod reply;
mod server;
mod settings;

use std::error::Error;
use std::io::Write;
use std::net::SocketAddr;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

use crate::server::Server;
use crate::settings::Settings;

fn main() -> Result<(), Box<dyn Error>> {
    let mut port = 0;
    let mut settings = Settings::default();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or("every option has a value")?;
        match word.as_str() {
            "--port" => port = value.parse()?,
            "--settings" => settings = serde_json::from_str(&value)?,
            _ => return Err(format!("unknown option {word}").into()),
        }
    }
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], port)).into())?;
    // Thousands of clients connect at once; the system takes as many as it allows.
    socket.listen(16_384)?;
    let listener: std::net::TcpListener = socket.into();
    let mut out = std::io::stdout();
    writeln!(out, "listening on {}", listener.local_addr()?.port())?;
    out.flush()?;
    Server::new(listener, settings)?.run()?;
    Ok(())
}
