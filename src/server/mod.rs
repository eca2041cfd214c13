//! The server as a whole: start, accept, shut down.

mod accept;
#[cfg(feature = "cluster")]
mod cluster;
#[cfg(feature = "cluster")]
mod history;
mod listen;
mod signals;
#[cfg(any(feature = "cluster", test))]
mod waiting;

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use log::{error, info, warn};
use thiserror::Error;

#[cfg(feature = "cluster")]
use crate::chat::FormatError;
use crate::chat::{AwayLimits, HistoryLimits, Room, RoomSettings, StoredHistory};
#[cfg(feature = "cluster")]
use crate::cluster::ClusterError;
use crate::config::{DatabasePath, Host, Settings};
use crate::connection::{Passwords, Shared};
use crate::http::{ClusterSource, Monitoring, Router, TrustedProxies};
use crate::hub::{
    self, Event, HubHandle, HubSettings, Order, Report, Storage, Tag, entry_time, stored_history,
};
use crate::limits::{ClientLog, Permits, Rates};
use crate::ops::metrics::Counters;
use crate::ops::random::random;
use crate::ops::systemd;
use crate::store::{self, Opened, Running, StoreError, StoreLimits};
use crate::tls::{Renewal, TlsError};
use accept::AcceptLoop;
#[cfg(feature = "cluster")]
use cluster::Membership;
use listen::{listen, raise_descriptor_limit};
use signals::wakeups;

pub use signals::Handle;

/// How long the shutdown may take in total.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(4800);

/// A server that is listening. It serves clients once it [runs](Server::run).
pub struct Server {
    accept: AcceptLoop,
    hub: JoinHandle<io::Result<()>>,
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
        Self::bind_stoppable(settings, |_| Ok(()))
    }

    /// The same. `on_handle` gets the handle, which can stop the server, before anything is waited for.
    ///
    /// # Errors
    /// The same, and [`StartError::Stopped`].
    pub fn bind_stoppable(
        settings: &Settings,
        on_handle: impl FnOnce(&Handle) -> io::Result<()>,
    ) -> Result<Self, StartError> {
        let counters = Arc::new(Counters::default());
        let renewal = Renewal::start(settings.tls.as_ref(), counters.clone()).map_err(StartError::Tls)?;
        // A server that is one of several listens once it has the chat.
        let is_alone = settings.cluster.is_none();
        let listeners = is_alone.then(|| listen(&settings.host, settings.port)).transpose()?;
        raise_descriptor_limit(settings.limits.connections);
        if settings.limits.send_queue_bytes < settings.limits.message_bytes {
            warn!(
                "SEND_QUEUE_BYTES is less than MAX_MESSAGE_BYTES: one long message may cut off all clients"
            );
        }
        let (handle, wakeups) = wakeups()?;
        on_handle(&handle)?;
        let on_end = handle.clone();
        let client_log = ClientLog::new(counters.clone());
        let local = prepare(settings, open_store(settings, &counters)?)?;
        #[cfg(feature = "cluster")]
        let (local, membership) = match &settings.cluster {
            None => (local, None),
            Some(cluster) => {
                let (local, membership) = cluster::join(settings, cluster, local, &counters, &wakeups)?;
                (local, Some(membership))
            }
        };
        let LocalChat { hub, writer, .. } = local;
        let (hub, hub_thread) = hub::start(hub, counters.clone(), client_log.clone(), move || on_end.stop())?;
        let reports = hub.clone();
        // If the hub has ended, nobody waits for the event.
        let report = move |event| {
            if let Some(report) = Report::of_store(event) {
                let _ = reports.send(Event::Store(Box::new(report)));
            }
        };
        let store = writer.map(|writer| writer.start(report)).transpose()?;
        #[cfg(feature = "cluster")]
        if let Some(membership) = &membership {
            membership.catch_up(&hub, &wakeups)?;
        }
        #[cfg(feature = "cluster")]
        let source = membership.as_ref().map(Membership::source);
        #[cfg(not(feature = "cluster"))]
        let source = None;
        let listeners = match listeners {
            Some(listeners) => listeners,
            None => listen(&settings.host, settings.port)?,
        };
        let address = listeners[0].local_addr()?;
        let is_tls = renewal.config().is_some();
        let shared = Arc::new(shared(settings, hub, counters, client_log, source)?);
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
    /// Those of the system calls, and why the hub has ended.
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
        let panicked = |_| Err(io::Error::other("the hub has panicked"));
        let ended = self.hub.join().unwrap_or_else(panicked);
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

/// The chat as this server has it, before its threads are started.
struct LocalChat {
    hub: HubSettings,
    writer: Option<store::Writer<Tag>>,
    /// The epoch of what was stored, and the id of the newest that is kept; 0: nothing.
    #[cfg(feature = "cluster")]
    epoch: Arc<str>,
    #[cfg(feature = "cluster")]
    newest_id: u64,
}

/// # Errors
/// getrandom(2) fails.
fn prepare(settings: &Settings, opened: Option<Opened<Tag>>) -> io::Result<LocalChat> {
    let max_message_bytes = settings.limits.message_bytes;
    let new_epoch = || random().map(|random| format!("{:016x}", u64::from_be_bytes(random)).into());
    let Some(Opened { state, mut queue, writer }) = opened else {
        // Ids start over with each start of the server.
        let epoch: Arc<str> = new_epoch()?;
        // Several servers share the history.
        let stored = settings.cluster.is_some().then(StoredHistory::default);
        let room = RoomSettings { epoch: epoch.clone(), stored, ..room_settings(settings) };
        let (room, order, storage) = (Room::new(room, &entry_time()), Order::Local(0), Storage::default());
        return Ok(LocalChat {
            hub: HubSettings { room, order, max_message_bytes, storage },
            writer: None,
            #[cfg(feature = "cluster")]
            epoch,
            #[cfg(feature = "cluster")]
            newest_id: 0,
        });
    };
    #[cfg(feature = "cluster")]
    let newest_id = state.newest_id();
    let mut epoch: Arc<str> = state.epoch.into();
    if state.is_shared && settings.cluster.is_none() {
        // Other servers may continue the chat, and assign the same ids.
        epoch = new_epoch()?;
        queue.set_epoch(epoch.clone(), false);
    }
    let room = RoomSettings {
        epoch: epoch.clone(),
        stored: Some(stored_history(state.messages, state.newest_older, &state.deleted, state.last_id)),
        moderators: state.moderators,
        bans: state.bans,
        time_outs: state.time_outs,
        ..room_settings(settings)
    };
    let (room, order) = (Room::new(room, &entry_time()), Order::Local(state.last_id));
    let storage = Storage::new(queue, state.reserved_id);
    Ok(LocalChat {
        hub: HubSettings { room, order, max_message_bytes, storage },
        writer: Some(writer),
        #[cfg(feature = "cluster")]
        epoch,
        #[cfg(feature = "cluster")]
        newest_id,
    })
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
    cluster: Option<ClusterSource>,
) -> io::Result<Shared> {
    let limits = settings.limits.clone();
    let permits = Permits::new(limits.connections, limits.connections_per_ip);
    let allow = settings.metrics_allow.clone();
    let monitoring = Monitoring::new(allow, counters.clone(), permits.clone(), hub.clone(), cluster);
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
    /// Not a failure.
    #[error("The server was stopped before it had started")]
    Stopped,
    #[cfg(feature = "cluster")]
    #[error("{0}")]
    Cluster(#[from] ClusterError),
    #[cfg(feature = "cluster")]
    #[error("{}", hub::unusable(.0))]
    Format(#[from] FormatError),
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
