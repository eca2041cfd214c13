//! The systemd unit, and the deploy hook for certbot.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::support::program::KillOnDrop;

const HOOK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/certbot-deploy-hook.sh");

/// A simulated /etc/letsencrypt with one name, laid out as certbot does, and a folder for TinyChat.
struct Machine {
    root: TempDir,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { root: tempfile::tempdir().unwrap() };
        fs::create_dir_all(machine.path("letsencrypt/archive/chat.example.com")).unwrap();
        fs::create_dir_all(machine.path("letsencrypt/live/chat.example.com")).unwrap();
        machine.renew(1);
        machine
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    /// Writes the pair with this number, and points the links to it.
    fn renew(&self, number: u32) {
        for name in ["fullchain", "privkey"] {
            let file = format!("archive/chat.example.com/{name}{number}.pem");
            let path = self.path("letsencrypt").join(&file);
            fs::write(&path, format!("{name} {number}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let link = self.path(&format!("letsencrypt/live/chat.example.com/{name}.pem"));
            let _ = fs::remove_file(&link);
            symlink(Path::new("../..").join(file), link).unwrap();
        }
    }

    fn run_hook(&self) -> Output {
        let group = Command::new("id").arg("-gn").output().unwrap();
        Command::new(HOOK)
            .env("RENEWED_LINEAGE", self.path("letsencrypt/live/chat.example.com"))
            .env("TINYCHAT_TLS", self.path("tinychat/tls"))
            .env("TINYCHAT_GROUP", String::from_utf8(group.stdout).unwrap().trim())
            .env("TINYCHAT_RELOAD", format!("touch {}", self.path("reloaded").display()))
            .output()
            .unwrap()
    }

    fn served(&self, name: &str) -> String {
        fs::read_to_string(self.path("tinychat/tls/live").join(name)).unwrap()
    }

    fn mode(&self, path: &str) -> u32 {
        fs::metadata(self.path(path)).unwrap().permissions().mode() & 0o777
    }
}

#[test]
fn the_hook_makes_the_renewed_pair_readable_for_the_group_only() {
    let machine = Machine::new();
    for number in 1..=3 {
        machine.renew(number);
        // The hook can be repeated.
        for _ in 0..2 {
            let output = machine.run_hook();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            assert_eq!(machine.served("fullchain.pem"), format!("fullchain {number}\n"));
            assert_eq!(machine.served("privkey.pem"), format!("privkey {number}\n"));
            assert_eq!(machine.mode("tinychat/tls"), 0o750);
            assert_eq!(machine.mode("tinychat/tls/live"), 0o750);
            assert_eq!(machine.mode("tinychat/tls/live/privkey.pem"), 0o640);
            fs::remove_file(machine.path("reloaded")).expect("the server is reloaded");
        }
    }
    let left = fs::read_dir(machine.path("tinychat/tls")).unwrap().map(|entry| entry.unwrap().file_name());
    let pairs = left.filter(|name| name.to_str().unwrap().starts_with("pair.")).count();
    assert_eq!(pairs, 1, "old keys are gone");
    assert_eq!(
        machine.mode("letsencrypt/archive/chat.example.com/privkey3.pem"),
        0o600,
        "certbot's key is untouched"
    );
}

#[test]
fn an_incomplete_pair_changes_nothing() {
    let machine = Machine::new();
    assert!(machine.run_hook().status.success());
    machine.renew(2);
    fs::write(machine.path("letsencrypt/archive/chat.example.com/privkey2.pem"), "").unwrap();
    let output = machine.run_hook();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("privkey.pem is missing or empty"));
    assert_eq!(
        (machine.served("fullchain.pem"), machine.served("privkey.pem")),
        ("fullchain 1\n".into(), "privkey 1\n".into())
    );
    let without = Command::new(HOOK).env_remove("RENEWED_LINEAGE").output().unwrap();
    assert!(
        !without.status.success() && String::from_utf8_lossy(&without.stderr).contains("RENEWED_LINEAGE")
    );
}

/// CI also runs systemd-analyze on it.
#[test]
fn the_unit_reloads_by_sighup_and_runs_as_its_own_user() {
    let unit = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/tinychat.service")).unwrap();
    for line in [
        "Type=notify",
        "ExecReload=/bin/kill -HUP $MAINPID",
        "User=tinychat",
        "WatchdogSec=30",
        "NoNewPrivileges=yes",
        "StateDirectory=tinychat",
        "WorkingDirectory=/var/lib/tinychat",
    ] {
        assert!(unit.lines().any(|other| other == line), "{line}");
    }
}

/// The notifications in their order.
#[test]
fn systemd_is_notified_of_start_reload_watchdog_and_stop() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let notify = UnixDatagram::bind(&path).unwrap();
    notify.set_read_timeout(Some(crate::support::client::TIMEOUT)).unwrap();
    let mut server = KillOnDrop(
        Command::new(env!("CARGO_BIN_EXE_tinychat"))
            .current_dir(&folder)
            .env_clear()
            .env("PORT", "0")
            .env("LOG_LEVEL", "off")
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "200000")
            .spawn()
            .unwrap(),
    );
    let id = server.0.id().to_string();
    let expect = |expected: &str| {
        let mut buffer = [0; 256];
        loop {
            let length = notify.recv(&mut buffer).unwrap_or_else(|error| panic!("{expected}: {error}"));
            let received = std::str::from_utf8(&buffer[..length]).unwrap();
            if received.lines().any(|line| line == expected) {
                return;
            }
            // Watchdog notifications may come in between.
            assert_eq!(received, "WATCHDOG=1\n", "before {expected}");
        }
    };
    let signal = |signal: &str| {
        let kill = Command::new("kill").args([signal, &id]).status();
        assert!(kill.unwrap().success());
    };
    expect("READY=1");
    expect("WATCHDOG=1");
    signal("-HUP");
    expect("RELOADING=1");
    expect("READY=1");
    expect("WATCHDOG=1");
    signal("-TERM");
    expect("STOPPING=1");
    assert!(server.0.wait().unwrap().success());
}
