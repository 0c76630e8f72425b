//! A Docker daemon that knows a few containers, and can refuse to tell of one.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::support::spawn;

/// How the daemon behaves.
#[derive(Clone, Debug)]
pub(crate) struct Daemon {
    ids: Arc<Vec<String>>,
    hung: Arc<Mutex<BTreeSet<String>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Daemon {
    /// Serves containers of these ids, named after them.
    pub(crate) fn start(socket: &Path, ids: &[&str]) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let this = Daemon { ids: Arc::new(ids.iter().map(|it| (*it).to_owned()).collect()), hung: Arc::default(), asked: Arc::default() };
        let daemon = this.clone();
        spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let daemon = daemon.clone();
                spawn(async move { drop(daemon.serve(stream).await) });
            }
        });
        this
    }

    /// Inspections of this one are not answered from now on, or are answered again.
    pub(crate) fn set_hung(&self, id: &str, hung: bool) {
        let mut all = self.hung.lock().unwrap();
        if hung {
            all.insert(id.to_owned())
        } else {
            all.remove(id)
        };
    }

    /// How often this one was inspected.
    pub(crate) fn inspected(&self, id: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|it| *it == id).count()
    }

    async fn serve(&self, stream: UnixStream) -> std::io::Result<()> {
        let (reader, mut writer) = stream.into_split();
        let mut lines = BufReader::new(reader).lines();
        loop {
            let Some(request) = lines.next_line().await? else { return Ok(()) };
            while lines.next_line().await?.is_some_and(|line| !line.is_empty()) {}
            let path = request.split(' ').nth(1).unwrap_or_default().split('?').next().unwrap_or_default().to_owned();
            let path = path.strip_prefix("/v1.41").unwrap_or(&path).to_owned();
            if path == "/events" {
                writer.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
                return std::future::pending().await;
            }
            let inspected = path.strip_prefix("/containers/").and_then(|it| it.strip_suffix("/json")).map(str::to_owned);
            if let Some(id) = &inspected {
                self.asked.lock().unwrap().push(id.clone());
                if self.hung.lock().unwrap().contains(id) {
                    return std::future::pending().await;
                }
            }
            let body = match (path.as_str(), inspected) {
                (_, Some(id)) => inspection(&id),
                ("/containers/json", None) => format!("[{}]", self.ids.iter().map(|id| summary(id)).collect::<Vec<_>>().join(",")),
                ("/version", None) => r#"{"ApiVersion":"1.41","Version":"20.10.24"}"#.to_owned(),
                (image, None) if image.starts_with("/images/") => r#"{"Id":"sha256:f1","RepoTags":["shop:v1"],"Size":7}"#.to_owned(),
                _ => "\"OK\"".to_owned(),
            };
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
            writer.write_all((head + &body).as_bytes()).await?;
        }
    }
}

fn summary(id: &str) -> String {
    format!(
        r#"{{"Id":"{id}","Names":["/name-of-{id}"],"Image":"shop:v1","ImageID":"sha256:f1","Command":"serve --password=hunter2",
            "Created":1700000000,"State":"running","Status":"Up 2 hours","Labels":{{"team":"blue"}},
            "Ports":[{{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":8080,"Type":"tcp"}}],
            "HostConfig":{{"NetworkMode":"default"}},"NetworkSettings":{{"Networks":{{"bridge":{{"IPAddress":"172.17.0.9"}}}}}}}}"#
    )
}

fn inspection(id: &str) -> String {
    format!(
        r#"{{"Id":"{id}","Name":"/name-of-{id}","Image":"sha256:f1","Path":"serve","Args":[],"Created":"2023-11-14T22:13:20Z",
            "State":{{"Status":"running","Running":true,"Pid":42,"StartedAt":"2023-11-14T22:13:21Z"}},
            "Config":{{"Image":"shop:v1","Hostname":"inside","Labels":{{"team":"blue"}}}}}}"#
    )
}
