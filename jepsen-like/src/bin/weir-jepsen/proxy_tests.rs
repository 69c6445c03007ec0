use std::future::Future;

use weir_runtime::task::RuntimeOptions;

use super::*;

/// Long enough for what is not held back to arrive; nobody waits for it unless it is held back.
const HELD: Duration = Duration::from_millis(200);
const NODE: Party = Party::Node(0);

/// A connection of a client's through the proxy of node 0, and the node's end of it.
struct Bench {
    links: Links,
    client: (Reader, Writer),
    node: (Reader, Writer),
}

fn with_bench<F: Future<Output = ()>>(test: impl FnOnce(Bench) -> F) {
    let all = async {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let links = Links::new();
        let target = listener.local_addr().unwrap();
        let proxy = Proxy::start(0, target, Sources::Clients, links.clone()).await.unwrap();
        let client = Stream::connect(proxy.address()).await.unwrap().into_split();
        let node = listener.accept().await.unwrap().0.into_split();
        test(Bench { links, client, node }).await;
    };
    task::block_on(RuntimeOptions::default(), all).unwrap();
}

async fn say(writer: &mut Writer, text: &'static str) {
    writer.write_all(&mut VecDeque::from([Bytes::from_static(text.as_bytes())])).await.unwrap();
}

/// What comes, until there are so many bytes, or no more come.
async fn hear(reader: &mut Reader, bytes: usize) -> io::Result<String> {
    let mut buffer = BytesMut::new();
    while buffer.len() < bytes && reader.read(&mut buffer, 1024).await? > 0 {}
    Ok(String::from_utf8(buffer.to_vec()).unwrap())
}

#[test]
fn both_ends_hear_each_other_and_the_end() {
    with_bench(|bench| async move {
        let mut bench = bench; // all of it: a half that is left outside would hang up
        say(&mut bench.client.1, "ask").await;
        assert_eq!(hear(&mut bench.node.0, 3).await.unwrap(), "ask");
        bench.client.1.shutdown().await.unwrap();
        assert_eq!(hear(&mut bench.node.0, 1).await.unwrap(), "");
        say(&mut bench.node.1, "answer").await;
        assert_eq!(hear(&mut bench.client.0, 6).await.unwrap(), "answer");
    });
}

#[test]
fn what_is_sent_on_a_cut_direction_arrives_when_it_is_mended_and_the_other_direction_is_as_it_was() {
    with_bench(|bench| async move {
        let mut bench = bench; // all of it: a half that is left outside would hang up
        let deaf = [(Party::Clients, NODE)];
        bench.links.cut(&deaf);
        say(&mut bench.client.1, "held").await;
        assert!(time::timeout(HELD, hear(&mut bench.node.0, 4)).await.is_err());
        say(&mut bench.node.1, "heard").await;
        assert_eq!(hear(&mut bench.client.0, 5).await.unwrap(), "heard");
        bench.links.mend(&deaf);
        assert_eq!(hear(&mut bench.node.0, 4).await.unwrap(), "held");
    });
}

#[test]
fn the_end_of_a_connection_is_not_heard_across_a_cut() {
    with_bench(|bench| async move {
        let mut bench = bench; // all of it: a half that is left outside would hang up
        bench.links.cut(&[(NODE, Party::Clients)]);
        drop(bench.node);
        assert!(time::timeout(HELD, hear(&mut bench.client.0, 1)).await.is_err());
        bench.links.heal();
        // Nothing, or a reset: it is over.
        assert_eq!(hear(&mut bench.client.0, 1).await.unwrap_or_default(), "");
    });
}

#[test]
fn a_reset_ends_both_ends_at_once() {
    with_bench(|bench| async move {
        let mut bench = bench; // all of it: a half that is left outside would hang up
        bench.links.reset(1); // another node's
        say(&mut bench.client.1, "ask").await;
        assert_eq!(hear(&mut bench.node.0, 3).await.unwrap(), "ask");
        bench.links.reset(0);
        assert_eq!(hear(&mut bench.client.0, 1).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(hear(&mut bench.node.0, 1).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn what_is_slow_arrives_later_and_in_its_order() {
    with_bench(|bench| async move {
        let mut bench = bench; // all of it: a half that is left outside would hang up
        let delay = Duration::from_millis(30);
        bench.links.slow_down(&[(Party::Clients, NODE)], delay);
        let begun = time::now();
        say(&mut bench.client.1, "one").await;
        say(&mut bench.client.1, "two").await;
        assert_eq!(hear(&mut bench.node.0, 6).await.unwrap(), "onetwo");
        assert!(begun.elapsed() >= delay);
    });
}
