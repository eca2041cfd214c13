//! The process that is measured: the server or the floor. It is killed when its [`Child`] is dropped.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{self, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, io};

use tempfile::TempDir;
use tinychat::tls::self_signed;

use crate::{RELAY, Result};

/// How long startup may take.
const START_TIMEOUT: Duration = Duration::from_secs(20);

pub struct Child {
    process: process::Child,
    pub address: SocketAddr,
    /// The certificate that clients trust; `None`: plaintext.
    pub certificate: Option<PathBuf>,
}

impl Child {
    /// The floor.
    pub fn relay(directory: &TempDir) -> Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.arg(RELAY);
        Self::start(command, directory, None)
    }

    /// The server with its default settings, but without a message rate.
    pub fn server(directory: &TempDir, tls: bool) -> Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tinychat"));
        command.env_clear().env("PORT", "0").env("MESSAGE_RATE", "0");
        // Pings would be counted as bytes of messages.
        command.env("PING_INTERVAL", "3600");
        let certificate = tls.then(|| directory.path().join("server.crt"));
        if let Some(cert) = &certificate {
            let key = directory.path().join("server.key");
            let (host, force) = ("localhost".into(), true);
            self_signed::generate(&self_signed::Request {
                cert: cert.clone(),
                key: key.clone(),
                days: 1,
                host,
                force,
            })?;
            command.env("USE_SSL", "true").env("SSL_CERT_PATH", cert).env("SSL_KEY_PATH", key);
        }
        Self::start(command, directory, certificate)
    }

    /// Starts the process, and reads from its log where it listens.
    fn start(mut command: Command, directory: &TempDir, certificate: Option<PathBuf>) -> Result<Self> {
        let log = tempfile::NamedTempFile::new_in(directory)?;
        // A directory without a `.env` file.
        command.current_dir(directory).stdin(Stdio::piped()).stderr(File::create(log.path())?);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut child = Self { process: command.spawn()?, address, certificate };
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let lines = fs::read_to_string(log.path())?;
            let line = lines.lines().find(|line| line.contains("running:") && lines.ends_with('\n'));
            if let Some((_, port)) = line.and_then(|line| line.rsplit_once(':')) {
                child.address.set_port(port.parse()?);
                return Ok(child);
            }
            if Instant::now() > deadline || child.process.try_wait()?.is_some() {
                return Err(io::Error::other(format!("the process does not start: {lines}")).into());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The processor time of all its threads so far. (`/proc/PID/stat` has it only in hundredths of a second.)
    pub fn processor_time(&self) -> Result<Duration> {
        let mut nanoseconds = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
            // A thread that has just ended has no file.
            let Ok(line) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
            nanoseconds += line.split(' ').next().unwrap_or_default().parse::<u64>()?;
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// The resident memory, in bytes.
    pub fn resident(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
        Ok(kilobytes.ok_or("no VmRSS in /proc/PID/status")?.parse::<u64>()? * 1024)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
