//! Port mappings, asked of gateways that are played on loopback.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use swarmseal::peer::{Node, NodeConfig, PortMappingConfig};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(60);
/// Nobody answers here: what is sent to it is lost.
const NOBODY: Ipv4Addr = Ipv4Addr::new(127, 83, 77, 99);

/// External port and internal address of what a gateway passes on, and how often it was asked.
#[derive(Clone, Default)]
struct Passed(Arc<Mutex<(BTreeMap<u16, SocketAddr>, usize)>>);

impl Passed {
    fn map(&self, external: u16, internal: SocketAddr) {
        let mut passed = self.0.lock().unwrap();
        passed.0.insert(external, internal);
        passed.1 += 1;
    }

    fn unmap(&self, gone: impl Fn(u16, SocketAddr) -> bool) {
        self.0.lock().unwrap().0.retain(|&external, &mut internal| !gone(external, internal));
    }

    fn all(&self) -> BTreeMap<u16, SocketAddr> {
        self.0.lock().unwrap().0.clone()
    }

    /// Once something is passed on.
    async fn some(&self) -> (u16, SocketAddr) {
        let some = async {
            loop {
                if let Some((&external, &internal)) = self.all().first_key_value() {
                    return (external, internal);
                }
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, some).await.expect("a mapping in time")
    }
}

async fn node(port_mapping: PortMappingConfig) -> Node {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let config = NodeConfig { listen, port_mapping: Some(port_mapping), ..NodeConfig::default() };
    Node::bind(config).await.unwrap()
}

async fn public_port(node: &Node, port: u16) {
    let known = async {
        while node.public_port() != port {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, known).await.expect("the node knows its port");
}

/// Another port.
fn other(port: u16) -> u16 {
    port.checked_add(1).unwrap_or(1024)
}

/// A gateway that speaks NAT-PMP and not PCP, and gives nobody the port that he has himself.
async fn nat_pmp(at: Ipv4Addr, lifetime: u32) -> Passed {
    let socket = UdpSocket::bind((at, 5351)).await.unwrap();
    let passed = Passed::default();
    let ours = passed.clone();
    tokio::spawn(async move {
        let mut packet = [0; 1100];
        loop {
            let (len, from) = socket.recv_from(&mut packet).await.unwrap();
            let packet = &packet[..len];
            let answer = match packet {
                // A request of version 0 to map TCP.
                &[0, 2, _, _, i0, i1, e0, e1, ref wanted @ ..] => {
                    let internal = u16::from_be_bytes([i0, i1]);
                    let external = u16::from_be_bytes([e0, e1]);
                    let wanted = u32::from_be_bytes(wanted.try_into().unwrap());
                    let (external, lifetime) = if wanted == 0 {
                        passed.unmap(|_, address| address.port() == internal);
                        (0, 0)
                    } else {
                        let external = if external == internal { other(external) } else { external };
                        passed.map(external, SocketAddr::new(from.ip(), internal));
                        (external, lifetime)
                    };
                    let mut answer = vec![0, 130, 0, 0, 0, 0, 0, 9];
                    answer.extend(internal.to_be_bytes());
                    answer.extend(external.to_be_bytes());
                    answer.extend(lifetime.to_be_bytes());
                    answer
                }
                // Another version: not supported, and which one is.
                _ => vec![0, 129, 0, 1, 0, 0, 0, 9],
            };
            socket.send_to(&answer, from).await.unwrap();
        }
    });
    ours
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_with_nat_pmp_passes_calls_on_until_the_end() {
    let gateway = Ipv4Addr::new(127, 83, 77, 1);
    let passed = nat_pmp(gateway, 3600).await;
    let node = node(PortMappingConfig::of(gateway)).await;
    let (external, internal) = passed.some().await;
    assert_eq!(internal, node.local_addr());
    // The port that trackers are told is the gateway's.
    public_port(&node, external).await;
    assert_ne!(external, node.local_addr().port());
    node.shutdown_now().await;
    assert!(passed.all().is_empty(), "{:?}", passed.all());
}

/// The documents of a gateway that speaks UPnP.
const DEVICE: &str = r#"<?xml version="1.0"?>
<root xmlns="urn:schemas-upnp-org:device-1-0"><device>
<deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType>
<deviceList><device><deviceType>urn:schemas-upnp-org:device:WANDevice:1</deviceType>
<deviceList><device><deviceType>urn:schemas-upnp-org:device:WANConnectionDevice:1</deviceType>
<serviceList><service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>
<controlURL>/control</controlURL><SCPDURL>/service.xml</SCPDURL></service></serviceList>
</device></deviceList></device></deviceList></device></root>"#;

fn service() -> String {
    let action = |name: &str, arguments: &[&str]| {
        let arguments: String = arguments
            .iter()
            .map(|name| format!("<argument><name>{name}</name><direction>in</direction></argument>"))
            .collect();
        format!("<action><name>{name}</name><argumentList>{arguments}</argumentList></action>")
    };
    let add = [
        "NewRemoteHost",
        "NewExternalPort",
        "NewProtocol",
        "NewInternalPort",
        "NewInternalClient",
        "NewEnabled",
        "NewPortMappingDescription",
        "NewLeaseDuration",
    ];
    format!(
        "<?xml version=\"1.0\"?><scpd xmlns=\"urn:schemas-upnp-org:service-1-0\"><actionList>{}{}</actionList></scpd>",
        action("AddPortMapping", &add),
        action("DeletePortMapping", &add[..3])
    )
}

/// The text of an element.
fn element<'a>(body: &'a str, name: &str) -> &'a str {
    let (_, rest) = body.split_once(&format!("<{name}>")).unwrap();
    rest.split_once("</").unwrap().0
}

/// Does what a control request says; the answer.
fn control(body: &str, passed: &Passed) -> String {
    let envelope = |inner: &str| {
        format!(
            "<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Body>{inner}</s:Body></s:Envelope>"
        )
    };
    let fault = |code: u32, text: &str| {
        envelope(&format!(
            "<s:Fault><detail><UPnPError xmlns=\"urn:schemas-upnp-org:control-1-0\"><errorCode>{code}</errorCode><errorDescription>{text}</errorDescription></UPnPError></detail></s:Fault>"
        ))
    };
    let external = element(body, "NewExternalPort").parse().unwrap();
    assert_eq!(element(body, "NewProtocol"), "TCP");
    if body.contains("DeletePortMapping") {
        passed.unmap(|port, _| port == external);
        return envelope(
            "<u:DeletePortMappingResponse xmlns:u=\"urn:schemas-upnp-org:service:WANIPConnection:1\"/>",
        );
    }
    // It knows no leases that end.
    if element(body, "NewLeaseDuration") != "0" {
        return fault(725, "OnlyPermanentLeasesSupported");
    }
    let internal: SocketAddr =
        format!("{}:{}", element(body, "NewInternalClient"), element(body, "NewInternalPort"))
            .parse()
            .unwrap();
    // Somebody else has that port.
    if external == internal.port() {
        return fault(718, "ConflictInMappingEntry");
    }
    passed.map(external, internal);
    envelope("<u:AddPortMappingResponse xmlns:u=\"urn:schemas-upnp-org:service:WANIPConnection:1\"/>")
}

async fn answer_http(stream: TcpStream, passed: Passed) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut path, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let line = line.trim().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            } else if let Some(at) = line.split(' ').nth(1).filter(|_| path.is_empty()) {
                path = at.to_owned();
            } else if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let answer = match path.as_str() {
            "/device.xml" => DEVICE.to_owned(),
            "/service.xml" => service(),
            _ => control(str::from_utf8(&body).unwrap(), &passed),
        };
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", answer.len());
        stream.write_all(format!("{head}{answer}").as_bytes()).await?;
    }
}

/// A gateway that speaks UPnP; where it is searched for.
async fn upnp() -> (SocketAddr, Passed) {
    let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let location = format!("http://{}/device.xml", http.local_addr().unwrap());
    let search = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = search.local_addr().unwrap();
    let passed = Passed::default();
    let ours = passed.clone();
    tokio::spawn(async move {
        let mut packet = [0; 1500];
        loop {
            tokio::select! {
                called = http.accept() => drop(tokio::spawn(answer_http(called.unwrap().0, passed.clone()))),
                searched = search.recv_from(&mut packet) => {
                    let (len, from) = searched.unwrap();
                    assert!(packet[..len].starts_with(b"M-SEARCH * HTTP/1.1\r\n"));
                    let answer = format!("HTTP/1.1 200 OK\r\nLOCATION: {location}\r\n\r\n");
                    search.send_to(answer.as_bytes(), from).await.unwrap();
                }
            }
        }
    });
    (at, ours)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_with_upnp_passes_calls_on_until_the_end() {
    let (search, passed) = upnp().await;
    // By the other protocols nobody answers.
    let node = node(PortMappingConfig { gateway: Some(NOBODY), upnp: search }).await;
    let (external, internal) = passed.some().await;
    assert_eq!(internal, node.local_addr());
    public_port(&node, external).await;
    node.shutdown_now().await;
    assert!(passed.all().is_empty(), "{:?}", passed.all());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mapping_is_renewed_at_half_its_time() {
    let gateway = Ipv4Addr::new(127, 83, 77, 2);
    let passed = nat_pmp(gateway, 2).await;
    let node = node(PortMappingConfig::of(gateway)).await;
    let begun = Instant::now();
    let renewed = async {
        while passed.0.lock().unwrap().1 < 3 {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, renewed).await.expect("renewed twice");
    assert!(begun.elapsed() >= Duration::from_secs(2), "each after a second");
    assert_eq!(passed.all().len(), 1);
    node.shutdown_now().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_gateway_nothing_waits() {
    let begun = Instant::now();
    let node = node(PortMappingConfig::of(NOBODY)).await;
    assert_eq!(node.public_port(), node.local_addr().port());
    node.shutdown_now().await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}
