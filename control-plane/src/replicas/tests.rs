use tokio::io::AsyncReadExt as _;

use super::*;
use crate::http::{self, Entrance};
use crate::telemetry::Telemetry;

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

#[tokio::test]
async fn a_connection_is_carried_to_the_leader_and_cut_when_another_leads() {
    let leader = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let first = member("first", &leader.local_addr().unwrap().to_string());
    let (tell, standing) = watch::channel(led_by(&first));
    let front = Front { standing: Some(standing), purpose: Purpose::Http, tls: None };
    let (mut client, accepted) = pair().await;
    let Route::There(there) = front.route() else { panic!("it belongs to the leader") };
    let carried = async { front.carry(accepted.into(), &there).await };
    let talk = async {
        let (mut at_leader, _) = leader.accept().await.unwrap();
        client.write_all(b"ping").await.unwrap();
        let mut heard = [0; 5];
        at_leader.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"Hping");
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
    let front = Front { standing: Some(standing), purpose: Purpose::Marathon, tls: None };
    let (client, accepted) = pair().await;
    let carried = async { drop(front.carry(accepted.into(), &first).await) };
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
    let front = Front { standing: Some(standing), purpose: Purpose::Http, tls: None };
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
        let route = timeout(Duration::from_secs(2), front.route_http(&mut accepted)).await;
        match route {
            Ok(route) => assert_eq!(matches!(route, Route::Here), stays, "{request}"),
            // Half a request: nobody knows yet.
            Err(_) => assert_eq!(request, "GET /"),
        }
    }
}

#[test]
fn nobody_is_asked_where_nobody_leads_and_whoever_is_alone_leads() {
    let (_tell, standing) = watch::channel(Standing::default());
    assert!(matches!(Front { standing: Some(standing), purpose: Purpose::Grpc, tls: None }.route(), Route::Nowhere));
    assert!(matches!(Front::alone(Purpose::Grpc).route(), Route::Here));
    // A master of Mesos has no place for our connections.
    let (_tell, standing) = watch::channel(led_by(&member("mesos", "")));
    assert!(matches!(Front { standing: Some(standing), purpose: Purpose::Grpc, tls: None }.route(), Route::Nowhere));
}

#[tokio::test]
async fn while_the_leader_is_dead_and_not_known_to_be_clients_are_refused_in_words() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (_tell, standing) = watch::channel(led_by(&member("first", &gone.to_string())));
    let listener = Arc::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
    let address = listener.local_addr().unwrap();
    let front = Front { standing: Some(standing), purpose: Purpose::Marathon, tls: None };
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
    let reply = tokio::select! {
        () = serving => panic!("it goes on"),
        reply = asking => reply,
    };
    assert!(reply.starts_with("HTTP/1.1 503") && reply.to_lowercase().contains("retry-after: 1"), "{reply}");
    assert!(reply.contains("Could not determine the current leader"), "{reply}");
}
