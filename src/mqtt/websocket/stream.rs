//! A WebSocket as the stream of octets that MQTT is (MQTT 5.0 and 3.1.1, section 6).
//!
//! Reading takes the frames apart where they stand, in the buffer of whoever reads. Writing makes
//! one frame of what is written at once, without copying it. Besides what is written, one answer
//! to the client at most waits to be sent: the last Pong, or Close.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameHeader};

use super::frames::{CONTROL_MAX, Fault, HEAD_MAX, Message, Payload, read_close};
use crate::mqtt::metrics;

/// The server's end of a WebSocket, after the handshake of HTTP.
///
/// It ends as a stream does: a client that sends Close is read to its end, and shutting down says
/// Close and waits until the client has closed, too. The time for that is the caller's to bound.
#[derive(Debug)]
pub struct WebSocket<S> {
    io: S,
    /// Octets that were read and are not used yet.
    ahead: BytesMut,
    reading: Reading,
    message: Message,
    writing: Writing,
    /// What is being answered, encoded.
    answer: BytesMut,
    /// What is to be answered after that.
    next_answer: Option<Frame>,
    unflushed: bool,
    closing: Closing,
    /// An answer could not be sent, and so nothing can.
    is_broken: bool,
    /// Why nothing can be read, once what came before it is.
    failed: Option<io::Error>,
}

#[derive(Debug)]
enum Reading {
    /// The head of a frame comes next.
    Head,
    Frame(Payload),
    /// Nothing that comes is of interest.
    Over,
}

/// Whether there can be more to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum More {
    /// The connection has come to its end.
    DoesNot,
    MayCome,
}

impl More {
    fn after(read: usize) -> Self {
        match read {
            0 => Self::DoesNot,
            _ => Self::MayCome,
        }
    }
}

/// The frame that is being written.
#[derive(Debug, Default)]
struct Writing {
    head: BytesMut,
    /// Octets of its payload that were not written yet.
    left: usize,
}

impl Writing {
    fn is_between_frames(&self) -> bool {
        self.head.is_empty() && self.left == 0
    }

    /// Begin a binary frame that is a whole message.
    fn begin(&mut self, octets: usize) -> io::Result<()> {
        let head = FrameHeader {
            opcode: OpCode::Data(Data::Binary),
            ..FrameHeader::default()
        };
        // Writing to memory does not fail.
        let formatted = head.format(octets as u64, &mut (&mut self.head).writer());
        formatted.map_err(io::Error::other)?;
        self.left = octets;
        Ok(())
    }
}

/// How far the connection has come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    Open,
    /// Close is said, or waits to be.
    Said,
    /// Nothing more is sent.
    Sent,
}

impl<S> WebSocket<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// The stream after a handshake, with the octets that came behind it already.
    pub fn new(io: S, ahead: Bytes) -> Self {
        Self {
            io,
            ahead: ahead.into(),
            reading: Reading::Head,
            message: Message::default(),
            writing: Writing::default(),
            answer: BytesMut::new(),
            next_answer: None,
            unflushed: false,
            closing: Closing::Open,
            is_broken: false,
            failed: None,
        }
    }

    /// Read the next octets, or what stands before them.
    fn poll_some(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<More>> {
        match self.reading {
            Reading::Over => Poll::Ready(Ok(More::DoesNot)),
            Reading::Head | Reading::Frame(Payload::Data { left: 0, .. }) => self.poll_head(cx),
            Reading::Frame(control @ Payload::Control { .. }) => self.poll_control(cx, control),
            Reading::Frame(Payload::Data { left, mut mask }) => {
                let before = buf.filled().len();
                let most = usize::try_from(left).unwrap_or(usize::MAX);
                let read = ready!(self.poll_octets(cx, buf, most))?;
                if let Some(octets) = buf.filled_mut().get_mut(before..) {
                    mask.unmask(octets);
                }
                let left = left.saturating_sub(read as u64);
                self.reading = Reading::Frame(Payload::Data { left, mask });
                Poll::Ready(Ok(More::after(read)))
            }
        }
    }

    /// Read the head of the next frame.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<More>> {
        loop {
            match self.message.head(&mut self.ahead) {
                Ok(Some(payload)) => {
                    self.reading = Reading::Frame(payload);
                    return Poll::Ready(Ok(More::MayCome));
                }
                Ok(None) => {}
                Err(fault) => return Poll::Ready(Err(self.fail(fault))),
            }
            if self.ahead.is_empty() && self.ahead.capacity() > AHEAD_MAX {
                self.ahead = BytesMut::new();
            }
            let mut octets = [0; HEAD_MAX];
            let mut room = ReadBuf::new(&mut octets);
            let mut room = room.take(HEAD_MAX.saturating_sub(self.ahead.len()));
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut room))?;
            if room.filled().is_empty() {
                return Poll::Ready(Ok(More::DoesNot));
            }
            self.ahead.extend_from_slice(room.filled());
        }
    }

    /// Read octets, of which the frame has this many left.
    fn poll_octets(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        left: usize,
    ) -> Poll<io::Result<usize>> {
        let most = left.min(buf.remaining());
        if !self.ahead.is_empty() {
            let octets = self.ahead.get(..most).unwrap_or(&self.ahead);
            let read = octets.len();
            buf.put_slice(octets);
            self.ahead.advance(read);
            return Poll::Ready(Ok(read));
        }
        let mut room = ReadBuf::new(buf.initialize_unfilled_to(most));
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut room))?;
        let read = room.filled().len();
        buf.advance(read);
        Poll::Ready(Ok(read))
    }

    /// Read what a control frame says, and answer it.
    fn poll_control(&mut self, cx: &mut Context<'_>, payload: Payload) -> Poll<io::Result<More>> {
        let Payload::Control {
            kind,
            left,
            mut mask,
        } = payload
        else {
            return Poll::Ready(Ok(More::MayCome));
        };
        // All of it together, so that nothing but the head has to be remembered.
        while self.ahead.len() < left {
            let mut octets = [0; CONTROL_MAX];
            let mut room = ReadBuf::new(&mut octets);
            let mut room = room.take(left - self.ahead.len());
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut room))?;
            if room.filled().is_empty() {
                return Poll::Ready(Ok(More::DoesNot));
            }
            self.ahead.extend_from_slice(room.filled());
        }
        let mut said = self.ahead.split_to(left);
        mask.unmask(&mut said);
        self.reading = Reading::Head;
        match kind {
            Control::Ping if self.closing == Closing::Open => {
                self.next_answer = Some(Frame::pong(said.freeze()));
            }
            Control::Close => match read_close(&said) {
                Ok(code) => self.say_close(code),
                Err(fault) => return Poll::Ready(Err(self.fail(fault))),
            },
            Control::Ping | Control::Pong | Control::Reserved(_) => {}
        }
        Poll::Ready(Ok(More::MayCome))
    }

    fn say_close(&mut self, code: Option<CloseCode>) {
        self.reading = Reading::Over;
        if self.closing == Closing::Open {
            self.closing = Closing::Said;
            self.next_answer = Some(Frame::close(code.map(|code| CloseFrame {
                code,
                reason: "".into(),
            })));
        }
    }

    fn fail(&mut self, fault: Fault) -> io::Error {
        metrics::websocket_failed(fault.as_str());
        self.say_close(Some(fault.code()));
        io::Error::new(io::ErrorKind::InvalidData, fault)
    }

    /// Send the answers that wait, if no frame is under way.
    fn poll_answers(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_broken {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if !self.writing.is_between_frames() || self.closing == Closing::Sent {
            return Poll::Ready(Ok(()));
        }
        loop {
            if self.answer.is_empty() {
                let Some(frame) = self.next_answer.take() else {
                    break;
                };
                let mut encoded = BytesMut::with_capacity(frame.len()).writer();
                // Writing to memory does not fail.
                frame.format(&mut encoded).map_err(io::Error::other)?;
                self.answer = encoded.into_inner();
            }
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.answer))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.answer.advance(written);
            self.unflushed = true;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.unflushed = false;
            self.answer = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Read what comes until the client has closed, too: what arrives at a closed socket resets
    /// the connection, and takes with it what the client has not read yet.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut octets = [0; 1024];
            let mut room = ReadBuf::new(&mut octets);
            let read = ready!(Pin::new(&mut self.io).poll_read(cx, &mut room));
            if read.is_err() || room.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S> AsyncRead for WebSocket<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(error) = this.failed.take() {
            return Poll::Ready(Err(error));
        }
        let before = buf.filled().len();
        loop {
            // Nobody may be writing: a Ping is answered from here. What cannot be sent now is sent
            // later, and what never can is an error for whoever writes: neither keeps from reading.
            if let Poll::Ready(Err(_)) = this.poll_answers(cx) {
                this.is_broken = true;
            }
            if buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            // As many frames as are there: small packets come in a frame each.
            let came = match this.poll_some(cx, buf) {
                Poll::Ready(Ok(More::MayCome)) => continue,
                came => came.map_ok(|_| ()),
            };
            if buf.filled().len() == before {
                return came;
            }
            if let Poll::Ready(Err(error)) = came {
                this.failed = Some(error);
            }
            return Poll::Ready(Ok(()));
        }
    }
}

impl<S> AsyncWrite for WebSocket<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        loop {
            if this.writing.is_between_frames() {
                if this.closing != Closing::Open || buf.is_empty() {
                    // After Close there is nobody to hear it, as behind a connection that broke.
                    return Poll::Ready(Ok(buf.len()));
                }
                ready!(this.poll_answers(cx))?;
                this.writing.begin(buf.len())?;
            }
            let Writing { head, left } = &mut this.writing;
            let payload = buf.get(..*left).unwrap_or(buf);
            let mut io = Pin::new(&mut this.io);
            let written = match head.is_empty() {
                true => ready!(io.as_mut().poll_write(cx, payload))?,
                false => {
                    let parts = [IoSlice::new(head), IoSlice::new(payload)];
                    ready!(io.as_mut().poll_write_vectored(cx, &parts))?
                }
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_head = written.min(head.len());
            head.advance(of_head);
            let of_payload = written - of_head;
            *left = left.saturating_sub(of_payload);
            if of_payload > 0 {
                return Poll::Ready(Ok(of_payload));
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_answers(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.closing != Closing::Sent {
            // In the middle of a frame nothing can be said any more.
            this.say_close(Some(CloseCode::Normal));
            ready!(this.poll_answers(cx))?;
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
            this.closing = Closing::Sent;
        }
        this.poll_linger(cx)
    }
}

/// Octets of memory that a connection keeps for what it reads ahead.
const AHEAD_MAX: usize = 256;

#[cfg(test)]
mod tests;
