//! The server as a whole: start, accept, shut down.

mod accept;
mod listen;
mod signals;

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use log::{error, info, warn};
use thiserror::Error;

use crate::chat::{AwayLimits, HistoryLimits, RoomSettings};
use crate::config::{DatabasePath, Host, Settings};
use crate::connection::{Passwords, Shared};
use crate::http::{Monitoring, Router, TrustedProxies};
use crate::hub::{
    self, Event, HubHandle, HubSettings, Report, Storage, Tag, named_moderators, stored_history,
};
use crate::limits::{ClientLog, Permits, Rates};
use crate::ops::metrics::Counters;
use crate::ops::random::random;
use crate::ops::systemd;
use crate::store::{self, Opened, Running, StoreError, StoreLimits};
use crate::tls::{Renewal, TlsError};
use accept::AcceptLoop;
use listen::{listen, raise_descriptor_limit};
use signals::wakeups;

pub use signals::Handle;

/// How long the shutdown may take in total.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(4800);

/// A server that is listening. It serves clients once it [runs](Server::run).
pub struct Server {
    accept: AcceptLoop,
    hub: JoinHandle<()>,
    /// `None`: nothing is stored.
    store: Option<Running>,
    handle: Handle,
    /// The first address that it listens on.
    address: SocketAddr,
    /// The `ws://` or `wss://` URL for the log.
    url: String,
    /// The chat page's URL for the log; `None`: `WEB_UI=false`.
    page: Option<String>,
}

impl Server {
    /// Loads the certificate, binds the listeners and opens the store.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn bind(settings: &Settings) -> Result<Self, StartError> {
        let counters = Arc::new(Counters::default());
        let renewal = Renewal::start(settings.tls.as_ref(), counters.clone()).map_err(StartError::Tls)?;
        let listeners = listen(&settings.host, settings.port)?;
        let address = listeners[0].local_addr()?;
        raise_descriptor_limit(settings.limits.connections);
        if settings.limits.send_queue_bytes < settings.limits.message_bytes {
            warn!(
                "SEND_QUEUE_BYTES is less than MAX_MESSAGE_BYTES: one long message may cut off all clients"
            );
        }
        let (handle, wakeups) = wakeups()?;
        let on_end = handle.clone();
        let client_log = ClientLog::new(counters.clone());
        let opened = open_store(settings, &counters)?;
        let (hub_settings, writer) = hub_settings(settings, opened)?;
        let (hub, hub_thread) =
            hub::start(hub_settings, counters.clone(), client_log.clone(), move || on_end.stop())?;
        let reports = hub.clone();
        // If the hub has ended, nobody waits for the event.
        let report = move |event| drop(reports.send(Event::Store(Box::new(Report::from(event)))));
        let store = writer.map(|writer| writer.start(report)).transpose()?;
        let is_tls = renewal.config().is_some();
        let shared = Arc::new(shared(settings, hub, counters, client_log)?);
        Ok(Self {
            accept: AcceptLoop { listeners, wakeups, renewal, shared, next_id: 1 },
            hub: hub_thread,
            store,
            handle,
            address,
            url: format!("{}://{}:{}", if is_tls { "wss" } else { "ws" }, settings.host, address.port()),
            page: settings.web_ui.then(|| page_url(is_tls, &settings.host, address.port())),
        })
    }

    /// Where the server listens; the first address if its host has several.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves clients until a [`Handle`] or a signal stops it, and returns when all connections are closed.
    ///
    /// # Errors
    /// Those of the system calls, and a panic of the hub.
    pub fn run(mut self) -> io::Result<()> {
        systemd::ready();
        // `cli` has registered the signals by now, so a script may wait for this line and then send one.
        info!("WebSocket server running: {}", self.url);
        if let Some(page) = &self.page {
            info!("Chat page: {page}");
        }
        self.accept.renewal.report();
        let accepted = self.accept.run();
        info!("Stopping: accepting no new connections and closing all others");
        let deadline = Instant::now() + SHUTDOWN_TIMEOUT;
        systemd::stopping();
        let AcceptLoop { listeners, shared, .. } = self.accept;
        drop(listeners);
        // If the hub has ended already, `join` reports why.
        let _ = shared.hub.send(Event::Shutdown);
        let ended = self.hub.join().map_err(|_| io::Error::other("the hub has panicked"));
        if let Some(store) = self.store {
            let left = deadline.saturating_duration_since(Instant::now());
            if !store.finish(left) {
                error!("The disk did not respond in time: the newest messages may not be stored");
            }
        }
        shared.client_log.report_all();
        accepted.and(ended)
    }
}

/// `None`: nothing is stored.
fn open_store(settings: &Settings, counters: &Arc<Counters>) -> Result<Option<Opened<Tag>>, StoreError> {
    let Some(path) = settings.database.path() else { return Ok(None) };
    let limits = StoreLimits { messages: settings.history.messages, max_age: settings.history.max_age };
    match store::open(path, limits, counters.clone()) {
        Ok(opened) => Ok(Some(opened)),
        Err(error)
            if matches!(settings.database, DatabasePath::Default(_)) && error.is_folder_not_writable() =>
        {
            warn!("{error}. Nothing is stored: a restart loses the history and all bans");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// What the hub starts with, and the store's thread, which is not started yet.
///
/// # Errors
/// getrandom(2) fails.
fn hub_settings(
    settings: &Settings,
    opened: Option<Opened<Tag>>,
) -> io::Result<(HubSettings, Option<store::Writer<Tag>>)> {
    let max_message_bytes = settings.limits.message_bytes;
    let Some(Opened { state, queue, writer }) = opened else {
        // Ids start over with each start of the server.
        let epoch = format!("{:016x}", u64::from_be_bytes(random()?)).into();
        let room = RoomSettings { epoch, stored: None, ..room_settings(settings) };
        let (storage, moderators) = (Storage::default(), Vec::new());
        return Ok((HubSettings { room, max_message_bytes, storage, moderators, last_id: 0 }, None));
    };
    let stored = stored_history(state.messages, state.newest_older, &state.deleted, state.last_id);
    let room = RoomSettings {
        epoch: state.epoch.into(),
        stored: Some(stored),
        bans: state.bans,
        time_outs: state.time_outs,
        ..room_settings(settings)
    };
    let storage = Storage::new(queue, state.reserved_id);
    let moderators = named_moderators(state.moderators);
    Ok((HubSettings { room, max_message_bytes, storage, moderators, last_id: state.last_id }, Some(writer)))
}

/// Without what the store has kept.
fn room_settings(settings: &Settings) -> RoomSettings {
    let Settings { history, resume_timeout, limits, .. } = settings;
    let age_millis = |age: Duration| age.as_millis().try_into().unwrap_or(u64::MAX);
    RoomSettings {
        epoch: Arc::default(),
        history: HistoryLimits { messages: history.messages, age_millis: history.max_age.map(age_millis) },
        stored: None,
        away: AwayLimits {
            timeout: *resume_timeout,
            members: limits.connections,
            members_per_network: limits.connections_per_ip,
        },
        proxies: settings.trusted_proxies.clone(),
        ..RoomSettings::default()
    }
}

/// # Errors
/// getrandom(2) fails.
fn shared(
    settings: &Settings,
    hub: HubHandle,
    counters: Arc<Counters>,
    client_log: ClientLog,
) -> io::Result<Shared> {
    let limits = settings.limits.clone();
    let permits = Permits::new(limits.connections, limits.connections_per_ip);
    let monitoring =
        Monitoring::new(settings.metrics_allow.clone(), counters.clone(), permits.clone(), hub.clone());
    let router = Router {
        monitoring,
        page: settings.web_ui,
        allowed_origins: settings.allowed_origins.clone(),
        proxies: TrustedProxies::new(settings.trusted_proxies.clone()),
    };
    let rates = Rates::new(&limits);
    let Settings { mod_password, join_password, .. } = settings;
    let passwords = Passwords::new(mod_password.clone(), join_password.clone(), counters.clone())?;
    Ok(Shared { limits, permits, rates, passwords, router, hub, counters, client_log })
}

/// The chat page's URL. Browsers cannot open the unspecified address, so that is replaced by `localhost`.
fn page_url(is_tls: bool, host: &Host, port: u16) -> String {
    let scheme = if is_tls { "https" } else { "http" };
    match host {
        Host::Address(address) if address.is_unspecified() => {
            format!(
                "{scheme}://localhost:{port}/ (from elsewhere: this machine's name in place of localhost)"
            )
        }
        host => format!("{scheme}://{host}:{port}/"),
    }
}

/// Why the server cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// Displayed as one line per error.
    #[error("{}", lines(.0))]
    Tls(Vec<TlsError>),
    #[error("Cannot listen on {host}:{port} ({error}): {}", remedy(.error))]
    Listen {
        host: Host,
        port: u16,
        #[source]
        error: io::Error,
    },
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("Cannot start the server: {0}")]
    System(#[from] io::Error),
}

fn lines(errors: &[TlsError]) -> String {
    errors.iter().map(TlsError::to_string).collect::<Vec<_>>().join("\n")
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::AddrInUse => "stop what listens there already, or set another PORT",
        ErrorKind::PermissionDenied => "ports below 1024 need a privilege: set another PORT",
        ErrorKind::AddrNotAvailable => "set HOST to an address of this machine, or to 0.0.0.0 for all",
        _ => "check HOST and PORT",
    }
}
