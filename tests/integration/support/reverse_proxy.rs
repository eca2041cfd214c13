//! nginx and Caddy of Debian, with the configuration that docs/operations.md shows.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::certificates::localhost;
use super::client::TIMEOUT;
use super::port::ReservedPort;
use super::program::{Folder, KillOnDrop};

/// Which proxy, and whether it serves TinyChat under the path `/chat/`.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Nginx,
    NginxPath,
    Caddy,
    CaddyPath,
}

/// The process is killed at the end of the test.
pub struct ReverseProxy {
    pub address: SocketAddr,
    /// The path of the chat page.
    pub path: &'static str,
    _process: KillOnDrop,
    _port: ReservedPort,
    _folder: Folder,
}

impl ReverseProxy {
    /// Starts one in front of this server. `None`: it is not installed, so the test is skipped. It fails instead if
    /// `TINYCHAT_PROXY_TESTS` is `required`.
    pub fn start(kind: Kind, server: SocketAddr) -> Option<Self> {
        let (program, path) = match kind {
            Kind::Nginx => ("nginx", "/"),
            Kind::NginxPath => ("nginx", "/chat/"),
            Kind::Caddy => ("caddy", "/"),
            Kind::CaddyPath => ("caddy", "/chat/"),
        };
        if !["/usr/sbin", "/usr/bin"].iter().any(|folder| Path::new(folder).join(program).exists()) {
            let setting = std::env::var("TINYCHAT_PROXY_TESTS").unwrap_or_default();
            assert_ne!(setting, "required", "{program} is not installed");
            eprintln!("skipped: {program} is not installed (apt-get install {program})");
            return None;
        }
        let (port, folder) = (ReservedPort::new(), Folder::new());
        let address = port.address();
        let command = match program {
            "nginx" => nginx(&folder, address, server, path),
            _ => caddy(&folder, address, server, path),
        };
        let mut process = start(command, &folder);
        wait_until_ready(&mut process, address);
        Some(Self { address, path, _process: process, _port: port, _folder: folder })
    }
}

fn nginx(folder: &Folder, address: SocketAddr, server: SocketAddr, path: &str) -> Command {
    let files = localhost();
    let mut example = example("nginx", 0);
    for (shown, used) in [
        ("listen 443 ssl;", format!("listen {address} ssl;")),
        ("/etc/letsencrypt/live/chat.example.com/fullchain.pem", files.cert.display().to_string()),
        ("/etc/letsencrypt/live/chat.example.com/privkey.pem", files.key.display().to_string()),
        ("chat.example.com", "localhost".into()),
        ("127.0.0.1:8765", server.to_string()),
    ] {
        example = replaced(&example, shown, &used);
    }
    if path != "/" {
        // As the text below the example says.
        example = replaced(&example, "location / {", &format!("location {path} {{"));
        example = replaced(&example, &format!("http://{server};"), &format!("http://{server}/;"));
    }
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {};\n", folder.path(name).display()))
        .concat();
    let log = folder.path("log");
    folder.write(
        "nginx.conf",
        format!(
            "daemon off; master_process off; pid {};\nerror_log {};\nevents {{}}\n\
             http {{\naccess_log off;\n{temporary}{example}\n}}\n",
            folder.path("pid").display(),
            log.display()
        ),
    );
    let mut command = Command::new("/usr/sbin/nginx");
    command.arg("-c").arg(folder.path("nginx.conf")).arg("-e").arg(log);
    command
}

fn caddy(folder: &Folder, address: SocketAddr, server: SocketAddr, path: &str) -> Command {
    let files = localhost();
    let example = example("text", usize::from(path != "/"));
    let example = replaced(
        &example,
        "chat.example.com {",
        &format!(
            "{{\nadmin off\nauto_https disable_redirects\n}}\nhttps://localhost:{} {{\nbind 127.0.0.1\ntls {} {}",
            address.port(),
            files.cert.display(),
            files.key.display()
        ),
    );
    // Caddy then believes what clients on loopback say about their addresses, as if they were proxies.
    let trusting = format!("reverse_proxy {server} {{\ntrusted_proxies 127.0.0.1/32\n}}");
    folder.write("Caddyfile", replaced(&example, "reverse_proxy 127.0.0.1:8765", &trusting) + "\n");
    let mut command = Command::new("/usr/bin/caddy");
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(folder.path("Caddyfile"));
    command
}

/// An example of docs/operations.md: the one with this position among those of a language in the section about this
/// proxy.
fn example(language: &str, position: usize) -> String {
    let docs = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md")).unwrap();
    let heading = if language == "nginx" { "\n### nginx\n" } else { "\n### Caddy\n" };
    let (_, section) = docs.split_once(heading).expect("the section exists");
    let fence = format!("\n```{language}\n");
    let block = section.split(&fence).nth(position + 1).expect("the example exists");
    block.split("\n```").next().unwrap().to_owned()
}

fn replaced(text: &str, shown: &str, used: &str) -> String {
    assert!(text.contains(shown), "{shown:?} is not in {text}");
    text.replace(shown, used)
}

fn start(mut command: Command, folder: &Folder) -> KillOnDrop {
    let home = folder.path(".");
    let command = command.env("HOME", &home).env("XDG_DATA_HOME", &home).env("XDG_CONFIG_HOME", &home);
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    KillOnDrop(command.spawn().unwrap())
}

fn wait_until_ready(process: &mut KillOnDrop, address: SocketAddr) {
    let start = Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(process.0.try_wait().unwrap().is_none(), "the proxy has exited");
        assert!(start.elapsed() < TIMEOUT, "the proxy does not listen");
        thread::sleep(Duration::from_millis(20));
    }
}
