"""One libtorrent peer: TORRENT DIRECTORY PORT [PEER]. Seeds what the directory has or fetches it; prints a line at each end."""

import sys
import time

import libtorrent

torrent, directory, port, peers = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]
session = libtorrent.session({
    "listen_interfaces": f"127.0.0.1:{port}",
    "enable_dht": False,
    "enable_lsd": False,
    "enable_natpmp": False,
    "enable_upnp": False,
    "enable_incoming_utp": False,
    "enable_outgoing_utp": False,
    "allow_multiple_connections_per_ip": True,
    "alert_mask": libtorrent.alert.category_t.storage_notification,
})
params = libtorrent.add_torrent_params()
params.ti = libtorrent.torrent_info(torrent)
params.save_path = directory
handle = session.add_torrent(params)
for peer in peers:
    host, peer_port = peer.rsplit(":", 1)
    handle.connect_peer((host, int(peer_port)))
while not handle.status().is_seeding:
    time.sleep(0.002)
print("complete", flush=True)
# Its last writes may still be queued.
handle.flush_cache()
while not any(isinstance(alert, libtorrent.cache_flushed_alert) for alert in session.pop_alerts()):
    session.wait_for_alert(100)
print("flushed", flush=True)
sys.stdin.read()
