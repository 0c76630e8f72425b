use tokio::io::AsyncReadExt as _;

use super::*;
use crate::http::{self, Entrance};
use crate::telemetry::Telemetry;

/// Of one of several, who waits no longer than `patience` for somebody to lead.
fn front_that_waits(standing: watch::Receiver<Standing>, purpose: Purpose, patience: Duration, supervisor: &Supervisor) -> Front {
    let hold = Hold::new(patience, supervisor.stopping().clone(), Telemetry::new());
    Front { several: Some(Several { standing, tls: None, hold }), purpose }
}

fn front(standing: watch::Receiver<Standing>, purpose: Purpose) -> Front {
    front_that_waits(standing, purpose, Duration::from_millis(100), &Supervisor::new(Telemetry::new()))
}

/// How often a connection that waited came to this end.
fn ended(front: &Front, end: &str) -> bool {
    let page = front.hold().unwrap().telemetry().render();
    page.contains(&format!("orchestrator_connections_held_total{{end=\"{end}\"}} 1")) && page.contains("orchestrator_connections_held 0")
}

fn member(id: &str, replica: &str) -> Member {
    let addresses = Addresses { replica: replica.to_owned(), ..Addresses::default() };
    Member { id: id.to_owned(), host_name: id.to_owned(), master: ([127, 0, 0, 1], 5050).into(), addresses }
}

fn led_by(member: &Member) -> Standing {
    Standing { leader: Some(member.clone()), ..Standing::default() }
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (client, listener.accept().await.unwrap().0)
}

async fn carry(front: &Front, accepted: TcpStream) -> io::Result<()> {
    let place = front.place(accepted.peer_addr().ok()).await;
    let Place::There(there) = place else { panic!("it belongs to the leader: {place:?}") };
    let (there, leader) = *there;
    front.join(accepted.into(), there, &leader).await
}

#[tokio::test]
async fn a_connection_is_carried_to_the_leader_and_cut_when_another_leads() {
    let leader = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let first = member("first", &leader.local_addr().unwrap().to_string());
    let (tell, standing) = watch::channel(led_by(&first));
    let front = front(standing, Purpose::Grpc);
    let (mut client, accepted) = pair().await;
    let carried = async { carry(&front, accepted).await };
    let talk = async {
        let (mut at_leader, _) = leader.accept().await.unwrap();
        client.write_all(b"ping").await.unwrap();
        let mut heard = [0; 5];
        at_leader.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"Gping");
        at_leader.write_all(b"pong").await.unwrap();
        client.read_exact(&mut heard[..4]).await.unwrap();
        tell.send_replace(led_by(&member("second", "127.0.0.1:1")));
        assert_eq!(client.read(&mut heard).await.unwrap(), 0, "the connection is closed");
    };
    let (carried, ()) = tokio::join!(carried, talk);
    carried.unwrap();
}

#[tokio::test]
async fn the_leader_is_told_who_calls_if_it_understands() {
    let leader = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut first = member("first", &leader.local_addr().unwrap().to_string());
    first.addresses.protocol = opening::PROTOCOL;
    let (_tell, standing) = watch::channel(led_by(&first));
    let front = front(standing, Purpose::Marathon);
    let (client, accepted) = pair().await;
    let carried = async { drop(carry(&front, accepted).await) };
    let heard = async {
        let (mut at_leader, _) = leader.accept().await.unwrap();
        let opening = Opening::read(&mut at_leader).await.unwrap();
        assert_eq!(opening, Opening { purpose: Purpose::Marathon, caller: Some(client.local_addr().unwrap()) });
        drop((client, at_leader));
    };
    tokio::join!(carried, heard);
}

#[tokio::test]
async fn what_is_asked_of_this_process_is_answered_by_it() {
    let (_tell, standing) = watch::channel(led_by(&member("another", "127.0.0.1:1")));
    let front = front(standing, Purpose::Http);
    for (request, stays) in [
        ("GET /health HTTP/1.1\r\n", true),
        ("GET /ready HTTP/1.1\r\n", true),
        ("GET /metrics HTTP/1.1\r\n", true),
        ("GET /health?verbose HTTP/1.1\r\n", true),
        ("GET /healthy HTTP/1.1\r\n", false),
        ("GET /metricsology HTTP/1.1\r\n", false),
        ("GET /api/topology HTTP/1.1\r\n", false),
        ("POST /health HTTP/1.1\r\n", false),
        ("GET /", false),
    ] {
        let (mut client, accepted) = pair().await;
        let mut accepted = edge_tls::Stream::from(accepted);
        client.write_all(request.as_bytes()).await.unwrap();
        if request.len() < 12 {
            client.shutdown().await.unwrap();
        }
        let place = timeout(Duration::from_secs(2), front.place_http(&mut accepted, || true)).await;
        match place {
            Ok(place) => assert_eq!(matches!(place, Place::Here(_)), stays, "{request}"),
            // Half a request: nobody knows yet.
            Err(_) => assert_eq!(request, "GET /"),
        }
    }
}

#[test]
fn nobody_is_asked_where_nobody_leads_and_whoever_is_alone_leads() {
    let (_tell, standing) = watch::channel(Standing::default());
    assert!(matches!(front(standing, Purpose::Grpc).route(), Route::Nowhere));
    assert!(matches!(Front::alone(Purpose::Grpc).route(), Route::Here));
    // A master of Mesos has no place for our connections.
    let (_tell, standing) = watch::channel(led_by(&member("mesos", "")));
    assert!(matches!(front(standing, Purpose::Grpc).route(), Route::Nowhere));
}

#[tokio::test]
async fn while_the_leader_is_dead_and_not_known_to_be_clients_are_refused_in_words() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (_tell, standing) = watch::channel(led_by(&member("first", &gone.to_string())));
    let listener = Arc::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
    let address = listener.local_addr().unwrap();
    let front = front(standing, Purpose::Marathon);
    let entrance_front = front.clone();
    let (telemetry, entrance) = (Telemetry::new(), Entrance { listener, tls: None, limit: 4, front });
    let supervisor = Supervisor::new(telemetry.clone());
    let serving = http::serve(entrance, axum::Router::new(), supervisor, telemetry);
    let asking = async {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET /v2/apps HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
        let mut reply = String::new();
        client.read_to_string(&mut reply).await.unwrap();
        reply
    };
    let (held, begun) = (entrance_front, std::time::Instant::now());
    let reply = tokio::select! {
        () = serving => panic!("it goes on"),
        reply = asking => reply,
    };
    assert!(begun.elapsed() >= Duration::from_millis(100) && ended(&held, "refused"));
    assert!(reply.starts_with("HTTP/1.1 503") && reply.to_lowercase().contains("retry-after: 1"), "{reply}");
    assert!(reply.contains("Could not determine the current leader"), "{reply}");
}

#[tokio::test]
async fn who_comes_while_nobody_leads_waits_and_is_carried_to_the_next_leader() {
    let leader = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (tell, standing) = watch::channel(Standing::default());
    let front = front_that_waits(standing, Purpose::Marathon, Duration::from_secs(60), &Supervisor::new(Telemetry::new()));
    let (mut client, accepted) = pair().await;
    client.write_all(b"PUT /v2/apps").await.unwrap();
    let carried = async { carry(&front, accepted).await };
    let elected = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let page = front.hold().unwrap().telemetry().render();
        assert!(page.contains("orchestrator_connections_held 1"), "{page}");
        tell.send_replace(led_by(&member("next", &leader.local_addr().unwrap().to_string())));
        let (mut at_leader, _) = leader.accept().await.unwrap();
        let mut heard = [0; 13];
        at_leader.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"MPUT /v2/apps", "nothing of it is lost");
        drop((at_leader, client));
    };
    let (carried, ()) = tokio::join!(carried, elected);
    drop(carried);
    assert!(ended(&front, "carried"));
}

#[tokio::test]
async fn a_leader_that_does_not_listen_yet_is_tried_again() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (_tell, standing) = watch::channel(led_by(&member("late", &address.to_string())));
    let front = front_that_waits(standing, Purpose::Http, Duration::from_secs(60), &Supervisor::new(Telemetry::new()));
    let listens = async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        TcpListener::bind(address).await.unwrap()
    };
    let (place, _leader) = tokio::join!(front.place(None), listens);
    assert!(matches!(place, Place::There(_)), "{place:?}");
}

#[tokio::test]
async fn who_waits_is_let_go_when_the_process_stops() {
    let (_tell, standing) = watch::channel(Standing::default());
    let supervisor = Supervisor::new(Telemetry::new());
    let front = front_that_waits(standing, Purpose::Http, Duration::from_secs(600), &supervisor);
    let stop = async {
        tokio::task::yield_now().await;
        supervisor.stop();
    };
    let (place, ()) = tokio::join!(timeout(Duration::from_secs(5), front.place(None)), stop);
    assert!(matches!(place, Ok(Place::Nowhere)), "{place:?}");
    assert!(ended(&front, "stopped"));
}

#[tokio::test]
async fn whoever_hands_over_waits_for_what_was_let_in() {
    let supervisor = Supervisor::new(Telemetry::new());
    let (_tell, standing) = watch::channel(Standing::default());
    let front = front_that_waits(standing, Purpose::Http, Duration::from_secs(60), &supervisor);
    let hold = front.hold().unwrap();
    let (one, two) = (hold.begin(), hold.begin());
    drop(one);
    assert!(timeout(Duration::from_millis(50), hold.quiet()).await.is_err());
    drop(two);
    timeout(Duration::from_secs(5), hold.quiet()).await.unwrap();
}

#[tokio::test]
async fn only_so_many_wait() {
    let (_tell, standing) = watch::channel(Standing::default());
    let front = front_that_waits(standing, Purpose::Http, Duration::from_secs(600), &Supervisor::new(Telemetry::new()));
    let waiting: Vec<_> = std::iter::from_fn(|| front.hold().unwrap().take(0)).collect();
    assert_eq!(waiting.len(), 2_048);
    let place = timeout(Duration::from_secs(5), front.place(None)).await;
    assert!(matches!(place, Ok(Place::Nowhere)), "{place:?}");
    drop(waiting);
    let page = front.hold().unwrap().telemetry().render();
    // The one that found no room, and one of those from before.
    assert!(
        page.contains("orchestrator_connections_held_total{end=\"full\"} 2") && page.contains("orchestrator_connections_held 0"),
        "{page}"
    );
}

#[tokio::test]
async fn who_comes_while_the_lead_is_handed_over_goes_to_the_next_leader() {
    let next = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (tell, standing) = watch::channel(led_by(&member("another", "127.0.0.1:1")));
    let front = front_that_waits(standing, Purpose::Http, Duration::from_secs(60), &Supervisor::new(Telemetry::new()));
    // What another one has carried here is not carried any further: it might be for ever.
    assert!(timeout(Duration::from_millis(100), front.place_carried(None)).await.is_err());
    front.hold().unwrap().handing_over().cancel();
    tell.send_replace(led_by(&member("next", &next.local_addr().unwrap().to_string())));
    // By the one that has led until now, it is.
    let place = timeout(Duration::from_secs(5), front.place_carried(None)).await;
    assert!(matches!(place, Ok(Place::There(_))), "{place:?}");
}
