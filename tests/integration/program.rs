//! The program itself, run as people run it: in a folder of its own, with an environment of its own.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use crate::client::{Client, HANG};
use crate::server::Transport;

/// A working directory, gone with the test.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file, and makes the folders that it is in.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    pub fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.path(name)).unwrap().permissions().mode() & 0o7777
    }

    pub fn set_mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), Permissions::from_mode(mode)).unwrap();
    }

    /// The names of what is in it, sorted.
    pub fn files(&self) -> Vec<OsString> {
        let mut files: Vec<_> =
            fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        files.sort();
        files
    }

    /// Runs a tool of the system's here, which must succeed.
    pub fn tool(&self, tool: &str, arguments: &[&str]) -> String {
        let output = Command::new(tool)
            .args(arguments)
            .current_dir(self.0.path())
            .output()
            .unwrap_or_else(|error| panic!("{tool}: {error}: install it (apt-get install {tool})"));
        let (out, errors) = (text(output.stdout), text(output.stderr));
        assert!(output.status.success(), "{tool} {arguments:?}: {errors}");
        out
    }

    /// The program with these arguments, which will find nothing in its environment but a `PATH`.
    pub fn tinychat(&self, arguments: &[&str]) -> Program {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tinychat"));
        command.args(arguments);
        self.program(command)
    }

    /// The same, begun by a line of the shell's, in which it is `"$@"`.
    pub fn tinychat_in_shell(&self, line: &str, arguments: &[&str]) -> Program {
        let mut command = Command::new("sh");
        command.args(["-c", line, "sh", env!("CARGO_BIN_EXE_tinychat")]).args(arguments);
        self.program(command)
    }

    /// The same, for a user from whom files can be kept. The superuser reads everything, so it becomes another.
    pub fn tinychat_as_nobody(&self, arguments: &[&str]) -> Program {
        if !geteuid().is_root() {
            return self.tinychat(arguments);
        }
        // Nobody may be kept from the folder that the program was built in.
        let copy = self.path("tinychat");
        // Not by this process: another thread's child may hold what is written here, and what is written cannot run.
        self.tool("cp", &[env!("CARGO_BIN_EXE_tinychat"), "tinychat"]);
        self.set_mode(".", 0o755);
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(copy).args(arguments);
        self.program(command)
    }

    fn program(&self, mut command: Command) -> Program {
        command
            .current_dir(self.0.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        Program(command)
    }
}

/// What is to be run.
pub struct Program(Command);

impl Program {
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.0.env(name, value.into());
        self
    }

    pub fn envs(mut self, pairs: &[(&str, &str)]) -> Self {
        self.0.envs(pairs.iter().copied());
        self
    }

    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.0.arg(argument.into());
        self
    }

    /// Runs it to its end.
    pub fn run(mut self) -> Ended {
        let mut child = Running::spawn(self.0.stdout(Stdio::piped()));
        let (sender, out) = channel();
        let mut stdout = child.child.stdout.take().unwrap();
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = stdout
                .read_to_end(&mut bytes)
                .and_then(|_| sender.send(bytes).map_err(std::io::Error::other));
        });
        let stdout =
            out.recv_timeout(HANG).unwrap_or_else(|_| panic!("it does not end: {:?}", child.waiting()));
        let (status, stderr) = child.end();
        Ended { status: status.code(), stdout: text(stdout), stderr }
    }

    /// Starts a server, and waits until it says that it runs. It ends with the test.
    pub fn start(mut self) -> Running {
        let mut running = Running::spawn(self.0.stdout(Stdio::null()));
        let line = running.hears("WebSocket server running: ");
        running.address = (Ipv4Addr::LOCALHOST, port(&line)).into();
        running
    }

    /// Starts it without waiting for what it says, for a log that is off.
    pub fn start_silent(mut self) -> Running {
        Running::spawn(self.0.stdout(Stdio::null()))
    }
}

fn port(line: &str) -> u16 {
    line.rsplit(':').next().unwrap().parse().unwrap_or_else(|_| panic!("no port in {line:?}"))
}

/// What a program that ended has left.
#[derive(Debug)]
pub struct Ended {
    /// `None`: a signal ended it.
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A program that runs, and is killed with the test if it still does.
pub struct Running {
    child: Child,
    /// Where a client on this machine finds it, if it has said that it runs.
    pub address: SocketAddr,
    lines: Receiver<String>,
    heard: Vec<String>,
    reader: Option<JoinHandle<()>>,
}

impl Running {
    fn spawn(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stderr = child.stderr.take().unwrap();
        let (lines, reader) = read_lines(stderr);
        let address = (Ipv4Addr::LOCALHOST, 0).into();
        Self { child, address, lines, heard: Vec::new(), reader: Some(reader) }
    }

    /// Waits for a line of the log that holds this text, and returns it.
    pub fn hears(&mut self, text: &str) -> String {
        loop {
            match self.lines.recv_timeout(HANG) {
                Ok(line) => {
                    self.heard.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(_) => panic!("{text:?} was not said, but:\n{}", self.heard.join("\n")),
            }
        }
    }

    /// What was said up to now and not waited for.
    fn waiting(&mut self) -> Vec<String> {
        self.lines.try_iter().collect()
    }

    /// A client that is connected and has not joined.
    pub fn connect(&self) -> Client {
        Client::connect(self.address, Transport::Ws)
    }

    /// A client that has joined.
    pub fn join(&self, name: &str) -> Client {
        let mut client = self.connect();
        client.enter(name);
        client
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end, and returns everything that it has said.
    pub fn end(mut self) -> (ExitStatus, String) {
        loop {
            match self.lines.recv_timeout(HANG) {
                Ok(line) => self.heard.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it does not end:\n{}", self.heard.join("\n")),
            }
        }
        let status = self.child.wait().unwrap();
        (status, self.heard.iter().map(|line| format!("{line}\n")).collect())
    }

    /// Ends it with SIGTERM, and returns everything that it has said. Clients that are still there and do not
    /// answer its goodbye keep it for a while.
    pub fn stop(self) -> String {
        self.signal(Signal::TERM);
        let (status, log) = self.end();
        assert_eq!(status.code(), Some(0), "{log}");
        log
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// A program that ends with the test, however that ends.
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn read_lines(stderr: ChildStderr) -> (Receiver<String>, JoinHandle<()>) {
    let (sender, lines) = channel();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(stderr).split(b'\n') {
            if line.is_err() || sender.send(text(line.unwrap_or_default())).is_err() {
                break;
            }
        }
    });
    (lines, reader)
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("what is said is UTF-8")
}

/// Asserts that nothing of a key file's content is in what was said: no 16 characters of its base64.
pub fn assert_tells_nothing_of(key: &Path, said: &str) {
    let key = String::from_utf8_lossy(&fs::read(key).unwrap()).into_owned();
    let is_base64 = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
    let words = key.split(|c| !is_base64(c)).filter(|word| word.len() >= 16);
    for part in words.flat_map(|word| word.as_bytes().chunks_exact(16)) {
        let part = std::str::from_utf8(part).unwrap();
        assert!(!said.contains(part), "{part:?} of the key was told in {said}");
    }
}
