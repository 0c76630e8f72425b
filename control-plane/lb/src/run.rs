//! The role: looks at Marathon whenever something has happened there, and keeps HAProxy's configuration as it has to be.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use marathon_rest::{Access, Client};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::apps::read_apps;
use crate::config::{Options, render};
use crate::haproxy::{Own, Reload, check, replace};
use crate::pages::{Board, router};

/// Events after which the apps may be others.
const EVENTS: [&str; 6] = [
    "api_post_event",
    "status_update_event",
    "health_status_changed_event",
    "instance_changed_event",
    "app_terminated_event",
    "deployment_step_success",
];
/// How long to wait for more events, once one has come.
const GATHERING: Duration = Duration::from_millis(100);
/// How long to wait before listening again.
const LISTEN_AGAIN: Duration = Duration::from_secs(2);
/// How long to wait before our HAProxy is started again.
const START_AGAIN: Duration = Duration::from_secs(1);
/// How long our HAProxy may finish its connections when everything ends.
const STOPPING: Duration = Duration::from_secs(30);

/// Keeps an HAProxy in front of Marathon's apps
#[derive(Clone, Debug, clap::Args)]
pub struct LbArgs {
    /// Addresses of Marathon, tried in turn
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080", num_args = 1..)]
    pub marathon: Vec<String>,
    /// How to be let in there
    #[command(flatten)]
    pub access: Access,
    /// Serve apps whose HAPROXY_GROUP names one of these; * for all apps. Without: apps that name none
    #[arg(long, num_args = 0..)]
    pub group: Vec<String>,
    /// The configuration that is written
    #[arg(long, default_value = "/etc/haproxy/haproxy.cfg")]
    pub haproxy_config: PathBuf,
    /// The HAProxy that is started and kept
    #[arg(long, default_value = "haproxy")]
    pub haproxy: PathBuf,
    /// Instead of an HAProxy of its own: what to run when the configuration has changed
    #[arg(long)]
    pub reload_command: Option<String>,
    /// Write the configuration once, and end
    #[arg(long)]
    pub once: bool,
    /// Where this program tells of itself (/_haproxy_getconfig, /metrics, …), or off
    #[arg(long, default_value = "127.0.0.1:9092")]
    pub listen: String,
    /// Port of virtual hosts; 0 for none
    #[arg(long, default_value_t = 80)]
    pub http_port: u16,
    /// Port of virtual hosts over TLS; 0 for none
    #[arg(long, default_value_t = 443)]
    pub https_port: u16,
    /// Certificates for that, with their keys (PEM)
    #[arg(long, value_delimiter = ',')]
    pub ssl_certs: Vec<String>,
    /// Port where the header X-Marathon-App-Id chooses the app; 0 for none
    #[arg(long, default_value_t = 9091)]
    pub app_id_port: u16,
    /// Port of HAProxy's own page; 0 for none
    #[arg(long, default_value_t = 9090)]
    pub stats_port: u16,
    /// Connections at once [default: as many as HAProxy may have files open for]
    #[arg(long)]
    pub max_connections: Option<u32>,
    /// Seconds that connections to the configuration before may go on
    #[arg(long, default_value_t = 300)]
    pub drain_seconds: u64,
    /// Take labels that hold lines of HAProxy's configuration (HAPROXY_{n}_FRONTEND_HEAD, …_BACKEND_HEAD): whoever may change apps may then
    /// change all of it
    #[arg(long)]
    pub raw_labels: bool,
    /// Least time between two changes of the configuration, in milliseconds
    #[arg(long, default_value_t = 1_000)]
    pub min_interval: u64,
    /// Seconds between two looks when nothing is heard of Marathon
    #[arg(long, default_value_t = 30)]
    pub poll_interval: u64,
}

impl LbArgs {
    fn options(&self) -> Options {
        let port = |port: u16| (port != 0).then_some(port);
        Options {
            http_port: port(self.http_port),
            https_port: port(self.https_port),
            ssl_certs: self.ssl_certs.clone(),
            app_id_port: port(self.app_id_port),
            stats_port: port(self.stats_port),
            max_connections: self.max_connections,
            drain_seconds: self.drain_seconds,
            ..Options::default()
        }
    }
}

struct Keeper {
    args: LbArgs,
    client: Client,
    options: Options,
    reload: Reload,
    board: Board,
    /// What is in the file, as far as this program put it there.
    written: Option<String>,
}

/// Keeps HAProxy until `stop` is ready.
///
/// # Errors
/// When an argument cannot be used; with `--once`, whatever goes wrong.
pub async fn run(args: LbArgs, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let client = Client::new(&args.marathon, &args.access)?;
    let reload = match (&args.reload_command, args.once) {
        (Some(command), _) => Reload::Command(command.clone()),
        (None, true) => Reload::Nobody,
        (None, false) => Reload::Own(Own::new(args.haproxy.clone())),
    };
    let board = Board::default();
    let mut keeper = Keeper { options: args.options(), client, reload, board: board.clone(), written: None, args };
    if keeper.args.once {
        return keeper.look().await;
    }
    let stopping = CancellationToken::new();
    if keeper.args.listen != "off" {
        let address: SocketAddr = keeper.args.listen.parse().with_context(|| format!("--listen {}", keeper.args.listen))?;
        let listener = TcpListener::bind(address).await.with_context(|| format!("listening at {address}"))?;
        let ended = stopping.clone().cancelled_owned();
        #[expect(clippy::disallowed_methods, reason = "ended by the token below")]
        drop(tokio::spawn(async move { axum::serve(listener, router(board)).with_graceful_shutdown(ended).await }));
    }
    let (happened, mut happenings) = watch::channel(0_u64);
    #[expect(clippy::disallowed_methods, reason = "ended by the token below")]
    drop(tokio::spawn(listen(keeper.client.clone(), happened, stopping.clone())));
    tokio::select! {
        () = keeper.keep(&mut happenings) => {}
        () = stop => {}
    }
    stopping.cancel();
    keeper.reload.stop(STOPPING).await;
    Ok(())
}

/// Tells that something has happened, for as long as somebody wants to know.
async fn listen(client: Client, happened: watch::Sender<u64>, stopping: CancellationToken) {
    let tell = || happened.send_modify(|it| *it += 1);
    loop {
        let listening = async {
            match client.events(&EVENTS).await {
                Ok(mut events) => {
                    // Whatever happened before this moment was not heard.
                    tell();
                    while events.next().await.is_some() {
                        tell();
                    }
                }
                Err(error) => tracing::warn!(%error, "nothing is heard of Marathon"),
            }
            tokio::time::sleep(LISTEN_AGAIN).await;
        };
        tokio::select! {
            () = stopping.cancelled() => return,
            () = listening => {}
        }
    }
}

impl Keeper {
    async fn keep(&mut self, happenings: &mut watch::Receiver<u64>) {
        loop {
            let begun = Instant::now();
            let outcome = self.look().await;
            self.note(outcome);
            let poll = begun + Duration::from_secs(self.args.poll_interval.max(1));
            tokio::select! {
                changed = happenings.changed() => if changed.is_err() { return },
                () = tokio::time::sleep_until(poll) => {}
                how = self.reload.ended() => {
                    tracing::error!(how, "HAProxy has ended, and is started again");
                    self.board.lock().restarts += 1;
                    self.written = None;
                    tokio::time::sleep(START_AGAIN).await;
                }
            }
            let least = begun + Duration::from_millis(self.args.min_interval);
            tokio::time::sleep_until(least.max(Instant::now() + GATHERING)).await;
            happenings.mark_unchanged();
        }
    }

    fn note(&self, outcome: anyhow::Result<()>) {
        if let Err(error) = &outcome {
            tracing::warn!(error = format!("{error:#}"), "the load balancer stays as it is");
        }
        let mut board = self.board.lock();
        board.looks += 1;
        board.looks_failed += u64::from(outcome.is_err());
        board.problem = outcome.err().map(|error| format!("{error:#}"));
    }

    /// One look at Marathon, and what follows from it.
    async fn look(&mut self) -> anyhow::Result<()> {
        let apps = self.client.get("/v2/apps?embed=apps.tasks").await.context("asking Marathon for its apps")?;
        let (backends, mut refused) = read_apps(&apps, &self.args.group, self.args.raw_labels);
        let (config, more) = render(&backends, &self.options);
        refused.extend(more);
        if self.written.as_ref() != Some(&config) {
            let counted = self.apply(&config).await;
            self.count_reload(counted.is_ok().then_some(&config));
            counted?;
            self.written = Some(config);
        }
        let mut board = self.board.lock();
        board.backends = backends;
        board.refused = refused;
        Ok(())
    }

    fn count_reload(&self, config: Option<&String>) {
        let mut board = self.board.lock();
        board.reloads += 1;
        match config {
            Some(config) => board.config.clone_from(config),
            None => board.reloads_failed += 1,
        }
    }

    async fn apply(&mut self, config: &str) -> anyhow::Result<()> {
        let file = self.args.haproxy_config.clone();
        let next = file.with_extension("cfg.next");
        std::fs::write(&next, config).with_context(|| format!("writing {}", next.display()))?;
        if !matches!(self.reload, Reload::Nobody) || self.args.haproxy.is_absolute() {
            check(&self.args.haproxy, &next).await?;
        }
        replace(&file, &next, config).with_context(|| format!("writing {}", file.display()))?;
        self.reload.apply(&file).await
    }
}
