//! The process that is measured. It is killed when its [`Child`] is dropped.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{self, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::{CertificateDer, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};
use tempfile::{NamedTempFile, TempDir};
use tinychat::tls::self_signed;

use super::Result;

/// How long startup may take.
const START_TIMEOUT: Duration = Duration::from_secs(20);

pub struct Child {
    process: process::Child,
    log: NamedTempFile,
    pub address: SocketAddr,
    /// How clients connect; `None`: in plaintext.
    pub tls: Option<Arc<ClientConfig>>,
}

impl Child {
    /// The server with these settings, and the defaults of all others, except that nothing is stored.
    pub fn server(directory: &TempDir, tls: bool, settings: &[(&str, &str)]) -> Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tinychat"));
        command.env_clear().env("PORT", "0").env("DATABASE_PATH", "off").envs(settings.iter().copied());
        let mut client = None;
        if tls {
            let [cert, key] = ["server.crt", "server.key"].map(|file| directory.path().join(file));
            command.env("USE_SSL", "true").env("SSL_CERT_PATH", &cert).env("SSL_KEY_PATH", &key);
            // A server reads its certificate again when it changes.
            if !cert.exists() {
                let (cert, host) = (cert.clone(), "localhost".into());
                self_signed::generate(&self_signed::Request { cert, key, days: 1, host, force: true })?;
            }
            client = Some(client_config(&cert)?);
        }
        Self::start(command, directory, client)
    }

    /// Starts the process, and reads from its log where it listens.
    pub fn start(command: Command, directory: &TempDir, tls: Option<Arc<ClientConfig>>) -> Result<Self> {
        let mut child = Self::spawn(command, directory, tls)?;
        let line = child.wait_for_log("running:")?;
        let (_, port) = line.rsplit_once(':').ok_or("the log has no port")?;
        child.address.set_port(port.parse()?);
        Ok(child)
    }

    /// A Redis server as docs/cluster.md recommends it, with its data in `directory`. `None`: none is installed.
    pub fn engine(directory: &TempDir) -> Result<Option<Self>> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
        command.args(["--save", "", "--appendonly", "yes", "--daemonize", "no"]);
        let mut engine = match Self::spawn(command, directory, None) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            engine => engine?,
        };
        engine.wait_for_log("Ready to accept connections")?;
        engine.address.set_port(port);
        Ok(Some(engine))
    }

    fn spawn(mut command: Command, directory: &TempDir, tls: Option<Arc<ClientConfig>>) -> io::Result<Self> {
        let log = NamedTempFile::new_in(directory)?;
        let file = File::create(log.path())?;
        // A directory without a `.env` file.
        command.current_dir(directory).stdin(Stdio::piped()).stdout(file.try_clone()?).stderr(file);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Ok(Self { process: command.spawn()?, log, address, tls })
    }

    /// The first line of the log with this text, once there is one.
    fn wait_for_log(&mut self, text: &str) -> Result<String> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let lines = self.log()?;
            let line = lines.lines().find(|line| line.contains(text) && lines.ends_with('\n'));
            if let Some(line) = line {
                return Ok(line.into());
            }
            if Instant::now() > deadline || self.process.try_wait()?.is_some() {
                return Err(io::Error::other(format!("the process does not start: {lines}")).into());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// What it has logged.
    pub fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(self.log.path())?)
    }

    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.process.try_wait()?.is_some())
    }

    /// How many threads it has.
    pub fn threads(&self) -> Result<usize> {
        Ok(fs::read_dir(self.proc("task"))?.count())
    }

    /// How many file descriptors are open.
    pub fn descriptors(&self) -> Result<usize> {
        Ok(fs::read_dir(self.proc("fd"))?.count())
    }

    /// The processor time of all its threads that have not ended.
    pub fn processor_time(&self) -> Result<Duration> {
        self.time_of_threads(|_| true)
    }

    /// The processor time of the thread with this name so far.
    pub fn thread_time(&self, name: &str) -> Result<Duration> {
        self.time_of_threads(|thread| thread == name)
    }

    /// The processor time of all its threads, with those that have ended, in hundredths of a second.
    pub fn total_processor_time(&self) -> Result<Duration> {
        let stat = fs::read_to_string(self.proc("stat"))?;
        // The name in parentheses may contain spaces. `utime` and `stime` are the 12th and 13th fields after it.
        let (_, fields) = stat.rsplit_once(')').ok_or("/proc/PID/stat has no name")?;
        let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
        let ticks = ticks.sum::<std::result::Result<u64, _>>()?;
        Ok(Duration::from_millis(ticks * 10))
    }

    fn time_of_threads(&self, is_wanted: impl Fn(&str) -> bool) -> Result<Duration> {
        let mut nanoseconds = 0;
        for task in fs::read_dir(self.proc("task"))? {
            let task = task?.path();
            let files = ["comm", "schedstat"].map(|file| fs::read_to_string(task.join(file)));
            // A thread that has just ended has no files.
            let [Ok(name), Ok(line)] = files else { continue };
            if is_wanted(name.trim_end()) {
                nanoseconds += line.split(' ').next().unwrap_or_default().parse::<u64>()?;
            }
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// The resident memory, in bytes.
    pub fn resident(&self) -> Result<u64> {
        let status = fs::read_to_string(self.proc("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
        Ok(kilobytes.ok_or("no VmRSS in /proc/PID/status")?.parse::<u64>()? * 1024)
    }

    fn proc(&self, file: &str) -> String {
        format!("/proc/{}/{file}", self.process.id())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Trusts only this certificate.
fn client_config(certificate: &Path) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate)?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13])?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}
