//! WebSockets as another implementation speaks them, over the TLS client that hides nothing.

use std::io::{self, Read, Write};

use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::protocol::{Message, Role};
use tungstenite::{Error, WebSocket};

use super::mqtt::{Channel, Mqtt};
use super::tls::{End, TlsClient, TlsStream};

/// An answer to a request that got no WebSocket.
#[derive(Debug)]
pub struct NoWebSocket {
    pub status: u16,
    pub text: String,
}

/// A WebSocket after its handshake.
pub struct WsStream {
    socket: WebSocket<StdStream>,
    /// The code of the Close frame that came.
    pub close: Option<CloseCode>,
}

/// The TLS connection as `std` knows streams.
struct StdStream {
    stream: TlsStream,
    unread: Vec<u8>,
}

/// A request for a WebSocket with these headers.
pub fn request(path: &str, headers: &[&str]) -> String {
    let mut request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n");
    for header in headers {
        request += header;
        request += "\r\n";
    }
    request + "\r\n"
}

/// The headers of an ordinary request.
pub const ORDINARY: [&str; 5] = [
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol: mqtt",
];

impl TlsClient {
    /// Handshake, and an ordinary request for a WebSocket.
    pub fn websocket(&self, path: &str) -> Result<WsStream, End> {
        let asked = WsStream::ask(self.handshake()?, &request(path, &ORDINARY))?;
        Ok(asked.unwrap_or_else(|answer| panic!("no WebSocket: {answer:?}")))
    }

    /// Handshake, WebSocket and CONNECT (MQTT 5, clean start, a client id of its own).
    pub fn connect_websocket(&self) -> Result<Mqtt<WsStream>, End> {
        Mqtt::connect(self.websocket("/mqtt")?, Mqtt::hello(""))
    }
}

impl WsStream {
    /// Send a request, and read the answer.
    pub fn ask(mut stream: TlsStream, request: &str) -> Result<Result<Self, NoWebSocket>, End> {
        stream.send(request.as_bytes())?;
        let mut answer = Vec::new();
        let (head, rest) = loop {
            answer.extend(stream.read()?);
            if let Some(end) = answer.windows(4).position(|octets| octets == b"\r\n\r\n") {
                break (String::from_utf8_lossy(&answer[..end]), &answer[end + 4..]);
            }
        };
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        if status != 101 {
            let text = String::from_utf8_lossy(&answer).into_owned();
            return Ok(Err(NoWebSocket { status, text }));
        }
        let lower = head.to_ascii_lowercase();
        assert!(lower.contains("sec-websocket-protocol: mqtt"), "{head}");
        // RFC 6455, section 1.3.
        let accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        assert!(head.contains(accept), "{head}");
        let unread = rest.to_vec();
        let socket = StdStream { stream, unread };
        Ok(Ok(Self {
            socket: WebSocket::from_raw_socket(socket, Role::Client, None),
            close: None,
        }))
    }

    /// Send a message, whatever it is.
    pub fn say(&mut self, message: Message) -> Result<(), End> {
        self.socket.send(message).map_err(|error| end(&error))
    }

    /// Send a frame that is part of a message, or all of it.
    pub fn say_part(&mut self, kind: Data, octets: &[u8], is_last: bool) -> Result<(), End> {
        let frame = Frame::message(octets.to_vec(), OpCode::Data(kind), is_last);
        self.say(Message::Frame(frame))
    }

    /// Send octets that are no frame.
    pub fn send_raw(&mut self, octets: &[u8]) -> Result<(), End> {
        self.socket.get_mut().stream.send(octets)
    }

    /// The next message.
    pub fn hear(&mut self) -> Result<Message, End> {
        let message = self.socket.read().map_err(|error| end(&error))?;
        if let Message::Close(Some(close)) = &message {
            self.close = Some(close.code);
        }
        Ok(message)
    }

    /// Wait for a Close frame and the end of the connection; gives the code.
    pub fn wait_close(mut self) -> CloseCode {
        loop {
            match self.hear() {
                Ok(_) => {}
                Err(end) => {
                    assert_ne!(end, End::Silent, "the connection goes on");
                    return self.close.expect("a Close frame before the end");
                }
            }
        }
    }
}

impl Channel for WsStream {
    fn send(&mut self, octets: &[u8]) -> Result<(), End> {
        self.say(Message::binary(octets.to_vec()))
    }

    fn read(&mut self) -> Result<Vec<u8>, End> {
        loop {
            match self.hear()? {
                Message::Binary(octets) => return Ok(octets.to_vec()),
                Message::Close(_) | Message::Ping(_) | Message::Pong(_) => {}
                other => return Err(End::Broken(format!("{other:?} in place of octets"))),
            }
        }
    }
}

fn end(error: &Error) -> End {
    match error {
        Error::Io(error) => error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Ended>())
            .map_or(End::Closed, |ended| ended.0.clone()),
        Error::ConnectionClosed | Error::AlreadyClosed => End::Closed,
        Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
            End::Closed
        }
        other => End::Broken(other.to_string()),
    }
}

/// The end of a connection, through an error of `std`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Ended(End);

impl Read for StdStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.unread.is_empty() {
            self.unread = match self.stream.read() {
                Ok(octets) => octets,
                Err(End::Closed) => return Ok(0),
                Err(end) => return Err(io::Error::other(Ended(end))),
            };
        }
        let octets = buf.len().min(self.unread.len());
        buf[..octets].copy_from_slice(&self.unread[..octets]);
        self.unread.drain(..octets);
        Ok(octets)
    }
}

impl Write for StdStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let sent = self.stream.send(buf);
        sent.map_err(|end| io::Error::other(Ended(end)))?;
        Ok(buf.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
