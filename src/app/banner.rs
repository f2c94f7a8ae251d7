//! What is printed when the broker is ready.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::ca::id::InstanceId;
use crate::config::DEVELOPMENT_CERTS;

/// The facts that are printed.
#[derive(Debug)]
pub(super) struct Banner<'a> {
    /// The instances, with where they are reached.
    pub(super) instances: &'a [Reached<'a>],
    /// URL of the admin API.
    pub(super) admin: &'a str,
    /// The socket for administrators on the host.
    pub(super) socket: Option<&'a Path>,
    pub(super) data_dir: &'a Path,
    /// Set in the development mode.
    pub(super) certs_dir: Option<&'a Path>,
    /// The path under which this program was started.
    pub(super) program: &'a Path,
}

/// Where an instance is reached, and by which server names, if not by all.
#[derive(Debug)]
pub(super) struct Reached<'a> {
    pub(super) instance: &'a InstanceId,
    pub(super) address: SocketAddr,
    /// Where it is reached over WebSocket: address and path.
    pub(super) websocket: Option<(SocketAddr, &'a str)>,
    pub(super) clients: Option<&'a str>,
}

impl Banner<'_> {
    /// The text, with a line break at its end.
    pub(super) fn render(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "portcullis {}", env!("CARGO_PKG_VERSION"))?;
        writeln!(out)?;
        for reached in self.instances {
            writeln!(out, "  Instance        {}", reached.instance)?;
            writeln!(out, "  MQTT over TLS   mqtts://{}", reached.address)?;
            if let Some((address, path)) = reached.websocket {
                writeln!(out, "  WebSocket       wss://{address}{path}")?;
            }
            if let Some(clients) = reached.clients {
                writeln!(out, "  Server names    {clients}")?;
            }
        }
        writeln!(out, "  Admin API       {}", self.admin)?;
        if let Some(socket) = self.socket {
            writeln!(out, "  Admin socket    {}", socket.display())?;
        }
        writeln!(out, "  Data            {}", self.data_dir.display())?;
        let Some(certs_dir) = self.certs_dir else {
            return Ok(());
        };
        writeln!(
            out,
            "  Certificates    {} (development mode)",
            certs_dir.display()
        )?;
        if let Some(reached) = self.instances.first() {
            self.write_tour(out, certs_dir, reached.address)?;
        }
        Ok(())
    }

    fn write_tour(&self, out: &mut String, certs_dir: &Path, mqtt: SocketAddr) -> std::fmt::Result {
        let client = |tool: &str, device: &str| {
            let file = |name: &str| quoted(&certs_dir.join(name));
            format!(
                "{tool} -h {} -p {} --cafile {} --cert {} --key {}",
                host(mqtt),
                mqtt.port(),
                file("server-ca.pem"),
                file(&format!("{device}.pem")),
                file(&format!("{device}.key")),
            )
        };
        let program = quoted(self.program);
        // The command line finds the key by itself where the development mode puts it.
        let key = match certs_dir == Path::new(DEVELOPMENT_CERTS) {
            true => String::new(),
            false => format!(" --key-file {}", quoted(&certs_dir.join("admin-key.json"))),
        };
        let subscribe = client("mosquitto_sub", "device-b1");
        let publish = client("mosquitto_pub", "device-a1");
        let refused = client("mosquitto_pub", "device-x1");

        writeln!(out, "\nTry it, in other terminals in this directory.")?;
        writeln!(out, "\nA device of ca-b listens:\n")?;
        writeln!(out, "  {subscribe} -t 'demo/#' -v")?;
        writeln!(out, "\nA device of ca-a publishes:\n")?;
        writeln!(out, "  {publish} -t demo/hello -m 'hello from a1'")?;
        writeln!(
            out,
            "\nSwitch ca-a off, and publish again: it is refused. Then switch it on:\n"
        )?;
        writeln!(out, "  {program} ca inactivate ca-a{key}")?;
        writeln!(out, "  {program} ca activate ca-a{key}")?;
        writeln!(out, "\nThe same through cargo, and what is registered:\n")?;
        writeln!(out, "  cargo run --release -- ca inactivate ca-a{key}")?;
        writeln!(out, "  cargo run --release -- ca activate ca-a{key}")?;
        writeln!(out, "  cargo run --release -- ca list{key}")?;
        writeln!(
            out,
            "\nA device of a CA that is not registered is refused: mosquitto_pub says \
             \"The connection was lost.\"\nand ends with code 7, the log below says \
             reason=\"unknown_ca\":\n"
        )?;
        writeln!(out, "  {refused} -t demo/hello -m 'hello from x1'")?;
        writeln!(out, "\nCtrl-C ends the broker. The log follows.\n")
    }
}

/// A host name that the development server certificate is good for.
fn host(address: SocketAddr) -> String {
    if address.ip().is_loopback() && address.is_ipv4() || address.ip().is_unspecified() {
        "localhost".to_owned()
    } else {
        address.ip().to_string()
    }
}

/// The path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%:,=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// The path under which the program can be started again from here.
pub(super) fn program() -> PathBuf {
    let started = std::env::current_exe().unwrap_or_else(|_| "portcullis".into());
    match std::env::current_dir() {
        Ok(here) => started
            .strip_prefix(&here)
            .map(|relative| Path::new(".").join(relative))
            .unwrap_or(started),
        Err(_) => started,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn development_banner_has_addresses_and_commands_that_can_be_pasted() {
        let instance = "post-cn-dev00001".parse().unwrap();
        let instances = [Reached {
            instance: &instance,
            address: "127.0.0.1:41883".parse().unwrap(),
            websocket: None,
            clients: None,
        }];
        let text = Banner {
            instances: &instances,
            admin: "http://127.0.0.1:41080",
            socket: Some(Path::new("data/admin.sock")),
            data_dir: Path::new("data"),
            certs_dir: Some(Path::new("/tmp/it's here/dev")),
            program: Path::new("./target/release/portcullis"),
        }
        .render();
        for line in [
            "  MQTT over TLS   mqtts://127.0.0.1:41883",
            "  Admin socket    data/admin.sock",
            "  Admin API       http://127.0.0.1:41080",
            r"  ./target/release/portcullis ca inactivate ca-a --key-file '/tmp/it'\''s here/dev/admin-key.json'",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(text.contains("mosquitto_sub -h localhost -p 41883 --cafile"));
    }

    #[test]
    fn configured_banner_has_every_instance_and_no_tour() {
        let (one, two) = ("one".parse().unwrap(), "two".parse().unwrap());
        let address = "192.0.2.7:8883".parse().unwrap();
        let reached = |instance, websocket, clients| Reached {
            instance,
            address,
            websocket,
            clients,
        };
        let names = Some("iot.example.com, *.plant7.example.com");
        let websocket = Some(("192.0.2.7:8884".parse().unwrap(), "/mqtt"));
        let text = Banner {
            instances: &[
                reached(&one, websocket, names),
                reached(&two, None, Some("all others")),
            ],
            admin: "http://127.0.0.1:8080",
            socket: None,
            data_dir: Path::new("data"),
            certs_dir: None,
            program: Path::new("portcullis"),
        }
        .render();
        assert!(!text.contains("Try it"));
        let told = "  Instance        one
  MQTT over TLS   mqtts://192.0.2.7:8883
  WebSocket       wss://192.0.2.7:8884/mqtt
  Server names    iot.example.com, *.plant7.example.com
  Instance        two
  MQTT over TLS   mqtts://192.0.2.7:8883
  Server names    all others
";
        assert!(text.contains(told), "{text}");
    }
}
