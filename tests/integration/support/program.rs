//! The program itself, run in a folder and an environment of its own.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, geteuid, kill_process, pidfd_open};
use tempfile::TempDir;

use super::client::{Client, TIMEOUT};
use super::server::Transport;

/// A working directory, removed at the end of the test.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file, and creates the folders that it is in.
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

    /// The names of the files and folders in one of its folders, sorted.
    pub fn files(&self, folder: &str) -> Vec<OsString> {
        let mut files: Vec<_> =
            fs::read_dir(self.path(folder)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        files.sort();
        files
    }

    /// Runs a system tool in the folder, asserts that it succeeds, and returns its standard output.
    pub fn run_tool(&self, tool: &str, arguments: &[&str]) -> String {
        let output = Command::new(tool)
            .args(arguments)
            .current_dir(self.0.path())
            .output()
            .unwrap_or_else(|error| panic!("{tool}: {error}: install it (apt-get install {tool})"));
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        assert!(output.status.success(), "{tool} {arguments:?}: {stderr}");
        stdout
    }

    /// The program with these arguments, and nothing in its environment but `PATH`.
    pub fn tinychat(&self, arguments: &[&str]) -> Program {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tinychat"));
        command.args(arguments);
        self.program(command)
    }

    /// The same, started by a line of shell in which the program and its arguments are `"$@"`.
    pub fn tinychat_in_shell(&self, line: &str, arguments: &[&str]) -> Program {
        let mut command = Command::new("sh");
        command.args(["-c", line, "sh", env!("CARGO_BIN_EXE_tinychat")]).args(arguments);
        self.program(command)
    }

    /// The same, run by a user to whom file modes apply: root can read everything, so root becomes `nobody`.
    pub fn tinychat_as_nobody(&self, arguments: &[&str]) -> Program {
        if !geteuid().is_root() {
            return self.tinychat(arguments);
        }
        // `nobody` may have no access to the build folder, so it runs a copy. `cp` makes it: if this process did,
        // a child that another thread starts could inherit the open file, and a file open for writing cannot be run.
        let copy = self.path("tinychat");
        self.run_tool("cp", &[env!("CARGO_BIN_EXE_tinychat"), "tinychat"]);
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
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        Program(command)
    }
}

/// The program, not started yet.
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
    pub fn run(mut self) -> Output {
        self.0.stdout(Stdio::piped());
        let mut process = self.start_without_waiting();
        let mut pipe = process.child.0.stdout.take().unwrap();
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if pipe.read_to_end(&mut bytes).is_ok() {
                let _ = sender.send(bytes);
            }
        });
        let Ok(stdout) = receiver.recv_timeout(TIMEOUT) else {
            panic!("it does not exit: {:?}", process.lines.try_iter().collect::<Vec<_>>())
        };
        let (status, stderr) = process.wait();
        Output { status: status.code(), stdout: text(stdout), stderr }
    }

    /// Starts a server, and waits for the log line that says that it is running.
    pub fn start(self) -> Process {
        let mut process = self.start_without_waiting();
        process.wait_until_running();
        process
    }

    /// Starts it, and does not wait for the log: `address` has no port yet.
    pub fn start_without_waiting(self) -> Process {
        let mut child = self.spawn();
        let lines = read_lines(child.0.stderr.take().unwrap());
        Process { child, address: (Ipv4Addr::LOCALHOST, 0).into(), lines, log: Vec::new() }
    }

    /// Starts it, and leaves its standard error to the test.
    pub fn spawn(mut self) -> KillOnDrop {
        KillOnDrop(self.0.spawn().unwrap_or_else(|error| panic!("{:?}: {error}", self.0)))
    }
}

/// Where clients on this machine reach the server, from the log line that ends in its port.
pub fn address_in(line: &str) -> SocketAddr {
    let port = line.trim_end().rsplit(':').next().unwrap().parse::<u16>();
    (Ipv4Addr::LOCALHOST, port.unwrap_or_else(|_| panic!("no port in {line:?}"))).into()
}

/// The output and status of a program that has exited.
#[derive(Debug)]
pub struct Output {
    /// `None`: it was ended by a signal.
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// The program while it is running. It is killed if the test ends first.
pub struct Process {
    child: KillOnDrop,
    /// Where clients on this machine reach the server.
    pub address: SocketAddr,
    lines: Receiver<String>,
    /// The lines received so far.
    log: Vec<String>,
}

impl Process {
    /// Waits for the log line that says that it is running.
    pub fn wait_until_running(&mut self) {
        self.address = address_in(&self.wait_for_line("WebSocket server running: "));
    }

    /// Waits for a line of the log that contains this text, and returns it.
    pub fn wait_for_line(&mut self, text: &str) -> String {
        loop {
            match self.lines.recv_timeout(TIMEOUT) {
                Ok(line) => {
                    self.log.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(_) => panic!("{text:?} is not in the log:\n{}", self.log.join("\n")),
            }
        }
    }

    /// The log up to now.
    #[cfg(feature = "cluster")]
    pub fn log(&mut self) -> String {
        self.log.extend(self.lines.try_iter());
        self.log.join("\n")
    }

    /// A client that is connected and has not joined.
    pub fn connect(&self) -> Client {
        Client::connect(self.address, Transport::Ws)
    }

    /// A client that has joined.
    pub fn join(&self, name: &str) -> Client {
        let mut client = self.connect();
        client.join_and_wait(name);
        client
    }

    pub fn id(&self) -> u32 {
        self.child.0.id()
    }

    pub fn signal(&self, signal: Signal) {
        self.child.signal(signal);
    }

    /// Waits until it exits, and returns the whole log.
    pub fn wait(mut self) -> (ExitStatus, String) {
        loop {
            match self.lines.recv_timeout(TIMEOUT) {
                Ok(line) => self.log.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it does not exit:\n{}", self.log.join("\n")),
            }
        }
        let status = self.child.wait();
        (status, self.log.iter().map(|line| format!("{line}\n")).collect())
    }

    /// Stops it with SIGTERM, asserts that it exits with 0, and returns the whole log. This takes longer if clients
    /// are connected that do not answer the closing handshake.
    pub fn stop(self) -> String {
        self.signal(Signal::TERM);
        let (status, log) = self.wait();
        assert_eq!(status.code(), Some(0), "{log}");
        log
    }
}

/// A process that is killed at the end of the test.
pub struct KillOnDrop(pub Child);

impl KillOnDrop {
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// Waits until it exits.
    pub fn wait(&mut self) -> ExitStatus {
        let pidfd = pidfd_open(Pid::from_child(&self.0), PidfdFlags::empty()).unwrap();
        let timeout = Timespec::try_from(TIMEOUT).unwrap();
        let ready = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout));
        assert_eq!(ready, Ok(1), "it does not exit");
        self.0.wait().unwrap()
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn read_lines(stderr: ChildStderr) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).split(b'\n') {
            if line.is_err() || sender.send(text(line.unwrap_or_default())).is_err() {
                break;
            }
        }
    });
    lines
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("the output is UTF-8")
}
