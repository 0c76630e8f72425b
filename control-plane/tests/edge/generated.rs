//! Requests made up from the OpenAPI document: whatever they say, the answer is one that the document promises, and never a defect.

use orchestrator_control::http::scope::schema::Nodes;
use serde_json::Value;

use crate::http::{Reply, raw};
use crate::world::World;

/// Requests for each operation.
const REQUESTS: usize = 120;

/// A small generator: the same requests in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.roll() % limit as u64).unwrap()
    }

    fn pick<'a>(&mut self, items: &[&'a str]) -> &'a str {
        items[self.below(items.len())]
    }

    /// A value that fits, almost fits, or is meant to hurt.
    fn value(&mut self) -> String {
        const VALUES: [&str; 40] = [
            "",
            "a",
            "0",
            "1",
            "-1",
            "5s",
            "1h",
            "true",
            "hide",
            "show",
            "all",
            "both",
            "system",
            "hosts",
            "containers",
            "processes",
            "pods",
            "services",
            "weave",
            "web-1;<host>",
            "web-1;%3Chost%3E",
            "web-1;100",
            "in-theinternet",
            "%2Fusr%2Fbin",
            "%",
            "%2",
            "%zz",
            "%ff",
            "%00",
            "+",
            "..",
            "%2e%2e%2f",
            "18446744073709551616",
            "1e309",
            "NaN",
            "2026-01-01T00:00:00Z",
            "yesterday",
            "%E2%80%AE",
            "`|(",
            "[a-z]{1000}",
        ];
        match self.below(20) {
            0 => "a".repeat(1 + self.below(8_000)),
            1 => format!("{}{}", self.pick(&VALUES), self.pick(&VALUES)),
            2 => (0..self.below(64)).map(|_| format!("%{:02x}", self.below(256))).collect(),
            _ => self.pick(&VALUES).to_owned(),
        }
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = [0, 1, 2, 16, 300, 5_000][self.below(6)];
        match self.below(4) {
            0 => (0..length).map(|_| self.roll().to_le_bytes()[0]).collect(),
            1 => (0..length).map(|_| [0x81, 0x91, 0xa1, 0xda, 0xdf, 0xdd, b'a', 0xc0, 0x00][self.below(9)]).collect(),
            2 => b"{\"Host\":{\"nodes\":{\"h\":{\"latest\":[]}}}}"[..self.below(38)].to_vec(),
            _ => b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
                .iter()
                .copied()
                .chain((0..length).map(|_| self.roll().to_le_bytes()[0]))
                .collect(),
        }
    }
}

fn request(dice: &mut Dice, method: &str, path: &str, operation: &Value) -> Vec<u8> {
    let mut target = path.to_owned();
    let mut pairs = Vec::new();
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let name = parameter["name"].as_str().unwrap();
        if parameter["in"] == "path" {
            // What a browser or curl would not send as it is cannot arrive.
            target = target.replace(&format!("{{{name}}}"), &dice.value().replace(' ', "%20"));
        } else if dice.below(3) == 0 {
            pairs.push(format!("{name}={}", dice.value()));
        }
    }
    if dice.below(8) == 0 {
        pairs.push(dice.value());
    }
    if !pairs.is_empty() {
        target = format!("{target}?{}", pairs.join("&"));
    }
    let body = if method == "GET" { Vec::new() } else { dice.bytes() };
    let content_type = dice.pick(&["application/msgpack", "application/json", "application/json; x", "text/plain", ""]);
    let encoding = dice.pick(&["", "", "Content-Encoding: gzip\r\n", "Content-Encoding: br\r\n"]);
    let accept = dice.pick(&["", "Accept: application/msgpack\r\n", "Accept: */*;q=0\r\n", "Accept-Encoding: gzip\r\n"]);
    let upgrade =
        dice.pick(&["", "", "Upgrade: websocket\r\n", "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 12\r\n"]);
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Type: {content_type}\r\n{encoding}{accept}{upgrade}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body].concat()
}

#[tokio::test]
async fn no_request_that_the_document_allows_to_be_made_up_finds_a_defect() {
    let (world, _probes) = World::with_two_hosts().await;
    let document: Value = world.get("/api/openapi.json").await.json();
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            for _ in 0..REQUESTS {
                let request = request(&mut dice, &method.to_uppercase(), path, operation);
                let reply: Reply = raw(world.http, &request).await;
                let shown = String::from_utf8_lossy(&request[..request.len().min(300)]).into_owned();
                assert!(reply.status < 500, "{} for {shown}", reply.status);
                // A value with a slash or a question mark in it may lead to another path, which has words of its own.
                let is_promised = operation["responses"][reply.status.to_string()].is_object();
                assert!(is_promised || matches!(reply.status, 400 | 404 | 405 | 200), "{} is not documented for {shown}", reply.status);
                if reply.status == 400 && reply.header("content-type") == "application/json" {
                    let reason: String = reply.json();
                    assert!(!reason.is_empty() || shown.contains("t="), "{shown}");
                }
            }
        }
    }
    let hosts: Nodes = world.get("/api/topology/hosts").await.json();
    assert!(hosts.nodes.contains_key("web-1;<host>"));
}
