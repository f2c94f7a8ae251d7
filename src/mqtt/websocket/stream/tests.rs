use std::collections::VecDeque;
use std::io::{Read, Write};
use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tungstenite::Message as Said;
use tungstenite::protocol::{Role, WebSocketConfig};

use super::*;

/// A client that another implementation speaks for, without I/O.
struct Client(tungstenite::WebSocket<Wire>);

#[derive(Default)]
struct Wire {
    incoming: VecDeque<u8>,
    outgoing: Vec<u8>,
}

impl Read for Wire {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match Read::read(&mut self.incoming, buf)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            read => Ok(read),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.outgoing.extend_from_slice(buf);
        Ok(buf.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Client {
    fn new() -> Self {
        let config = WebSocketConfig::default().write_buffer_size(0);
        let socket =
            tungstenite::WebSocket::from_raw_socket(Wire::default(), Role::Client, Some(config));
        Self(socket)
    }

    /// The octets that say this.
    fn say(&mut self, said: Said) -> Vec<u8> {
        self.0.send(said).unwrap();
        std::mem::take(&mut self.0.get_mut().outgoing)
    }

    /// What these octets say.
    fn hear(&mut self, octets: &[u8]) -> Vec<Said> {
        self.0.get_mut().incoming.extend(octets);
        std::iter::from_fn(|| self.0.read().ok()).collect()
    }
}

fn part(kind: Data, octets: &[u8], is_last: bool) -> Said {
    Said::Frame(Frame::message(octets.to_vec(), OpCode::Data(kind), is_last))
}

/// A WebSocket and the client's end of the connection, which takes so many octets at a time.
fn pair(buffer: usize) -> (WebSocket<DuplexStream>, DuplexStream) {
    let (near, far) = tokio::io::duplex(buffer);
    (WebSocket::new(near, Bytes::new()), far)
}

/// What one side does while the other waits for it.
async fn within<F: Future>(what: F) -> F::Output {
    let limited = tokio::time::timeout(Duration::from_secs(10), what);
    limited.await.unwrap()
}

/// Everything the server says until nobody has anything left to do.
async fn heard(client: &mut Client, far: &mut DuplexStream) -> Vec<Said> {
    let mut octets = Vec::new();
    let reading = far.read_to_end(&mut octets);
    // Time that is paused goes on when all tasks wait.
    tokio::time::pause();
    let _ = tokio::time::timeout(Duration::from_millis(50), reading).await;
    tokio::time::resume();
    client.hear(&octets)
}

#[tokio::test]
async fn packets_and_frames_need_not_align() {
    let (mut server, mut far) = pair(1 << 16);
    let mut client = Client::new();
    // Two packets in a frame, one in three frames, nothing in a frame.
    let octets = [
        client.say(Said::binary(b"onetwo".to_vec())),
        client.say(part(Data::Binary, b"th", false)),
        client.say(Said::Ping(Bytes::from_static(b"there?"))),
        client.say(part(Data::Continue, b"", false)),
        client.say(part(Data::Continue, b"ree", true)),
        client.say(Said::binary(Vec::new())),
        client.say(Said::binary(b"four".to_vec())),
    ];
    far.write_all(&octets.concat()).await.unwrap();
    let mut read = vec![0; 15];
    within(server.read_exact(&mut read)).await.unwrap();
    assert_eq!(read, b"onetwothreefour");
    let said = heard(&mut client, &mut far).await;
    assert_eq!(said, [Said::Pong(Bytes::from_static(b"there?"))]);
}

#[tokio::test]
async fn frames_that_are_there_are_read_at_once_and_a_fault_after_them() {
    let (mut server, mut far) = pair(1 << 16);
    let mut client = Client::new();
    let mut octets = Vec::new();
    for number in 0..100 {
        octets.extend(client.say(Said::binary(vec![number])));
    }
    octets.extend(client.say(Said::text("{}")));
    far.write_all(&octets).await.unwrap();
    let mut read = [0; 200];
    assert_eq!(within(server.read(&mut read)).await.unwrap(), 100);
    assert!(read.iter().take(100).copied().eq(0..100));
    let fault = within(server.read(&mut read)).await.unwrap_err();
    assert_eq!(fault.kind(), io::ErrorKind::InvalidData);
    assert_eq!(within(server.read(&mut read)).await.unwrap(), 0);
}

#[tokio::test]
async fn client_that_cannot_be_answered_any_more_is_read_to_its_end() {
    let (mut server, mut far) = pair(1 << 16);
    let mut client = Client::new();
    for said in [
        Said::Ping(Bytes::from_static(b"there?")),
        Said::binary(b"last".to_vec()),
    ] {
        far.write_all(&client.say(said)).await.unwrap();
    }
    drop(far);
    let mut read = Vec::new();
    within(server.read_to_end(&mut read)).await.unwrap();
    assert_eq!(read, b"last");
}

#[tokio::test]
async fn what_is_written_at_once_is_one_frame() {
    let (mut server, mut far) = pair(1 << 20);
    let mut client = Client::new();
    let pieces = [0, 1, 125, 126, 65_535, 65_536].map(|octets| vec![7u8; octets]);
    for piece in &pieces {
        within(server.write_all(piece)).await.unwrap();
    }
    within(server.flush()).await.unwrap();
    let said = heard(&mut client, &mut far).await;
    let expected = pieces[1..].iter().cloned().map(Said::binary);
    assert_eq!(said, expected.collect::<Vec<_>>());
}

#[tokio::test]
async fn octets_that_came_with_the_request_are_not_lost() {
    let (near, _far) = tokio::io::duplex(64);
    let octets = Client::new().say(Said::binary(b"early".to_vec()));
    let mut server = WebSocket::new(near, octets.into());
    let mut read = [0; 5];
    within(server.read_exact(&mut read)).await.unwrap();
    assert_eq!(&read, b"early");
}

#[tokio::test]
async fn client_that_closes_is_answered_and_read_to_its_end() {
    let (mut server, mut far) = pair(1 << 16);
    let mut client = Client::new();
    let close = CloseFrame {
        code: CloseCode::Away,
        reason: "the page was left".into(),
    };
    let octets = [
        client.say(Said::binary(b"last".to_vec())),
        client.say(Said::Close(Some(close))),
    ];
    far.write_all(&octets.concat()).await.unwrap();
    let mut read = Vec::new();
    within(server.read_to_end(&mut read)).await.unwrap();
    assert_eq!(read, b"last");
    let closing = tokio::spawn(async move { within(server.shutdown()).await });
    let said = heard(&mut client, &mut far).await;
    let expected = CloseFrame {
        code: CloseCode::Away,
        reason: "".into(),
    };
    assert_eq!(said, [Said::Close(Some(expected))]);
    drop(far);
    closing.await.unwrap().unwrap();
}

#[tokio::test]
async fn server_that_closes_says_so_after_the_last_octets_and_waits_for_the_client() {
    let (mut server, mut far) = pair(1 << 16);
    let mut client = Client::new();
    within(server.write_all(b"farewell")).await.unwrap();
    let closing = tokio::spawn(async move { within(server.shutdown()).await });
    let said = heard(&mut client, &mut far).await;
    assert_eq!(said.len(), 2, "{said:?}");
    assert_eq!(said[0], Said::binary(b"farewell".to_vec()));
    assert!(
        matches!(&said[1], Said::Close(Some(close)) if close.code == CloseCode::Normal),
        "{said:?}"
    );
    assert!(!closing.is_finished(), "it waits for the client");
    drop(far);
    closing.await.unwrap().unwrap();
}

#[tokio::test]
async fn client_that_breaks_a_rule_is_told_which_and_heard_no_more() {
    let mut client = Client::new();
    for (octets, code) in [
        (client.say(Said::text("{}")), CloseCode::Unsupported),
        (
            client.say(part(Data::Continue, b"x", true)),
            CloseCode::Protocol,
        ),
        (vec![0x82, 1, 0], CloseCode::Protocol),
        (
            vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4],
            CloseCode::Protocol,
        ),
        (
            client.say(Said::Close(Some(CloseFrame {
                code: CloseCode::Bad(999),
                reason: "".into(),
            }))),
            CloseCode::Protocol,
        ),
    ] {
        let (mut server, mut far) = pair(1 << 16);
        let after = Client::new().say(Said::binary(b"after".to_vec()));
        far.write_all(&[octets, after].concat()).await.unwrap();
        let mut read = Vec::new();
        let error = within(server.read_to_end(&mut read)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(within(server.read(&mut [0; 8])).await.unwrap(), 0);
        assert_eq!(read, b"");
        // What is written then goes nowhere.
        within(server.write_all(b"lost")).await.unwrap();
        tokio::spawn(async move { server.shutdown().await });
        let said = heard(&mut Client::new(), &mut far).await;
        assert!(
            matches!(said.as_slice(), [Said::Close(Some(close))] if close.code == code),
            "{said:?}"
        );
    }
}

#[tokio::test]
async fn announced_octets_cost_nothing_and_many_pings_one_answer() {
    let (mut server, mut far) = pair(1 << 16);
    let mut client = Client::new();
    let mut octets = Vec::new();
    for number in 0..1_000u16 {
        octets.extend(client.say(Said::Ping(number.to_be_bytes().to_vec().into())));
    }
    // A frame of four exbibytes.
    octets.extend([0x82, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, b'x']);
    let sending = tokio::spawn(async move {
        far.write_all(&octets).await.unwrap();
        far
    });
    let mut read = [0];
    within(server.read_exact(&mut read)).await.unwrap();
    assert_eq!(&read, b"x");
    assert!(
        server.ahead.capacity() <= AHEAD_MAX,
        "{}",
        server.ahead.capacity()
    );
    assert!(
        server.answer.capacity() <= 256,
        "{}",
        server.answer.capacity()
    );
    let mut far = sending.await.unwrap();
    let said = heard(&mut client, &mut far).await;
    let last = Said::Pong(999u16.to_be_bytes().to_vec().into());
    assert_eq!(said.last(), Some(&last));
}

#[tokio::test]
async fn client_that_takes_nothing_does_not_make_answers_pile_up() {
    let (mut server, mut far) = pair(16);
    let mut client = Client::new();
    let mut flood = Vec::new();
    for number in 0..100 {
        flood.extend(client.say(Said::Ping(vec![number; 100].into())));
    }
    flood.extend(client.say(Said::binary(b"x".to_vec())));
    let mut read = [0];
    let (sent, received) =
        within(async { tokio::join!(far.write_all(&flood), server.read_exact(&mut read)) }).await;
    sent.unwrap();
    received.unwrap();
    assert!(
        server.answer.capacity() <= 256,
        "{}",
        server.answer.capacity()
    );
    // Data waits behind the answer that is under way, and the answer is whole.
    let writing = tokio::spawn(async move {
        within(server.write_all(b"data")).await.unwrap();
        within(server.flush()).await.unwrap();
        server
    });
    let said = heard(&mut client, &mut far).await;
    assert_eq!(said.last(), Some(&Said::binary(b"data".to_vec())));
    assert!(said.iter().all(|said| !said.is_text()), "{said:?}");
    drop(writing.await.unwrap());
}

proptest! {
    #[test]
    fn octets_pass_whatever_the_frames_and_the_pieces(
        messages in proptest::collection::vec(
            proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..4), 0..6),
        buffer in 1usize..300,
        room in 1usize..300,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut client = Client::new();
            let mut octets = Vec::new();
            for message in &messages {
                for (index, piece) in message.iter().enumerate() {
                    let kind = if index == 0 { Data::Binary } else { Data::Continue };
                    octets.extend(client.say(part(kind, piece, index + 1 == message.len())));
                    octets.extend(client.say(Said::Pong(Bytes::new())));
                }
            }
            let (mut server, mut far) = pair(buffer);
            let sending = tokio::spawn(async move {
                far.write_all(&octets).await.unwrap();
                far.shutdown().await.unwrap();
                far
            });
            let mut all = Vec::new();
            let mut read = vec![0; room];
            loop {
                match within(server.read(&mut read)).await.unwrap() {
                    0 => break,
                    octets => all.extend_from_slice(&read[..octets]),
                }
            }
            sending.await.unwrap();
            assert_eq!(all, messages.concat().concat());
        });
    }

    #[test]
    fn any_octets_are_read_to_an_end(octets: Vec<u8>, wanted in 1usize..64) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (near, far) = tokio::io::duplex(64);
            drop(far);
            let mut server = WebSocket::new(near, octets.into());
            let mut read = vec![0; wanted];
            within(async { while matches!(server.read(&mut read).await, Ok(1..)) {} }).await;
        });
    }
}
