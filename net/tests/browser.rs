//! What `play --serve` serves, in Chromium: an MP4 and a WebM play, seek to places that have not been fetched, and every frame
//! that is shown is the one of its time.

// Public, for not every item in it serves here.
pub mod world;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use thirtyfour::prelude::*;

use self::world::{DEADLINE, Running, World};

/// Frames a second, and seconds.
const RATE: u32 = 10;
const SECONDS: u32 = 40;
/// The lowest part of each frame is its number: a stripe for each bit, the lowest to the left, white for 1.
const BITS: u32 = 10;
const SIZE: (u32, u32) = (640, 360);
const STRIPES: u32 = 60;
/// With this variable set, the picture in the docs is taken anew.
const RENEW: &str = "SWARMSEAL_RENEW_SCREENSHOT";

/// Two films of numbered frames with sound. The MP4's index is at its end.
fn make_films(directory: &Path) {
    fs::create_dir(directory).unwrap();
    let (width, height) = SIZE;
    let picture = format!("testsrc2=s={width}x{}:r={RATE}:d={SECONDS},format=yuv420p", height - STRIPES);
    let bit = format!("mod(floor(N/pow(2,floor(X*{BITS}/{width}))),2)");
    let stripes = format!("nullsrc=s={width}x{STRIPES}:r={RATE}:d={SECONDS},format=yuv420p");
    let filter =
        format!("{picture}[p];{stripes},geq=lum='if({bit},235,16)':cb=128:cr=128[s];[p][s]vstack[v]");
    let sound = format!("sine=frequency=440:sample_rate=48000:duration={SECONDS}");
    let film = |name: &str, codecs: &[&str]| {
        let made = Command::new("ffmpeg")
            .args(["-v", "error", "-f", "lavfi", "-i", &sound, "-filter_complex", &filter])
            .args(["-map", "[v]", "-map", "0:a", "-pix_fmt", "yuv420p", "-g", "20", "-shortest"])
            .args(codecs)
            .arg(directory.join(name))
            .stdin(Stdio::null())
            .status();
        assert!(made.expect("ffmpeg").success(), "{name}");
    };
    film("film.mp4", &["-c:v", "libx264", "-preset", "ultrafast", "-b:v", "2M", "-c:a", "aac"]);
    film(
        "film.webm",
        &["-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "2M", "-c:a", "libopus"],
    );
}

/// A browser in a directory of its own.
struct Browser {
    driver: WebDriver,
    process: Child,
    _profile: tempfile::TempDir,
}

impl Browser {
    async fn start() -> Self {
        // Nothing here speaks TLS, but the client wants to know how it would.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let profile = tempfile::tempdir().unwrap();
        let mut process = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .spawn()
            .expect("chromedriver");
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut lines = lines.map_while(Result::ok);
        let port = lines
            .find_map(|line| line.strip_suffix('.')?.rsplit_once("successfully on port ")?.1.parse().ok());
        let port: u16 = port.expect("the driver's port");
        // Its words would fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let mut options = DesiredCapabilities::chrome();
        let data = format!("--user-data-dir={}", profile.path().display());
        for flag in [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--autoplay-policy=no-user-gesture-required",
            "--window-size=760,660",
            "--mute-audio",
            &data,
        ] {
            options.add_arg(flag).unwrap();
        }
        let driver = WebDriver::new(format!("http://127.0.0.1:{port}"), options).await.expect("a session");
        driver.set_script_timeout(DEADLINE).await.unwrap();
        Browser { driver, process, _profile: profile }
    }

    /// What an asynchronous script gives to its `done`, with `film`, the film's number, and `at`.
    async fn run(&self, script: &str, film: usize, at: f64) -> Value {
        let script = format!(
            "const [film, at, done] = arguments; const video = document.querySelectorAll('video')[film]; {SHARED} {script}"
        );
        self.driver.execute_async(script, vec![json!(film), json!(at)]).await.unwrap().json().clone()
    }

    /// Seeks into the middle of a frame; the number of the frame that is shown then.
    async fn frame_at(&self, film: usize, frame: u32) -> Value {
        let at = (f64::from(frame) + 0.5) / f64::from(RATE);
        self.run("seek(video, at).then(() => done(shown(video)), error => done(String(error)));", film, at)
            .await
    }

    /// Plays for so many frames: the number of each that is shown, and of the one that should be, by its time.
    async fn play(&self, film: usize, frames: u32) -> Vec<(u64, u64)> {
        let script = "
            const seen = [];
            const look = (now, frame) => {
                seen.push([shown(video), Math.round(frame.mediaTime * RATE)]);
                if (seen.length < at) { video.requestVideoFrameCallback(look); } else { video.pause(); done(seen); }
            };
            video.muted = false;
            video.requestVideoFrameCallback(look);
            video.play().catch(error => done(String(error)));";
        let seen = self.run(script, film, f64::from(frames)).await;
        serde_json::from_value(seen.clone()).unwrap_or_else(|_| panic!("{seen}"))
    }

    async fn end(mut self) {
        let _ = self.driver.quit().await;
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const SHARED: &str = "
    const RATE = 10, BITS = 10, STRIPES = 60;
    const shown = video => {
        const canvas = document.createElement('canvas');
        [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
        const context = canvas.getContext('2d');
        context.drawImage(video, 0, 0);
        let number = 0;
        for (let bit = 0; bit < BITS; bit++) {
            const x = Math.floor((bit + 0.5) * canvas.width / BITS), y = canvas.height - STRIPES / 2;
            const [red] = context.getImageData(x, y, 1, 1).data;
            if (red > 64 && red < 192) { return 'neither black nor white: ' + red; }
            number += (red >= 192) << bit;
        }
        return number;
    };
    const seek = (video, at) => new Promise((resolve, reject) => {
        video.onerror = () => reject(video.error.message);
        video.onseeked = () => resolve();
        const go = () => { video.currentTime = at; };
        if (video.readyState > 0) { go(); } else { video.onloadedmetadata = go; video.preload = 'auto'; video.load(); }
    });";

fn stored(world: &World, who: &str) -> (u32, u32) {
    (world.stored(who).1.len() as u32, world.shape().piece_count)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium, chromium-driver and ffmpeg"]
async fn a_browser_shows_every_frame_at_its_time() {
    let world = World::of(make_films, &["--piece-length", "64K", "--name", "Two test films"]);
    let _seed = world.seed(&[]);
    let code = world.voucher(&[]);
    let get = world.get("alice", &["--download-limit", "700K", "--voucher", &code]);
    get.event("listening");
    let torrent = world.torrent();
    let play = Running::start(&world.path("alice"), &["play", &torrent, "--serve"]);
    let url = play.event("serving")["url"].as_str().unwrap().to_owned();
    let browser = Browser::start().await;
    browser.driver.goto(&url).await.unwrap();

    // While it comes: the index at the end of the MP4, then places that are not there yet.
    let begun = Instant::now();
    for frame in [0, 350, 123] {
        assert_eq!(browser.frame_at(0, frame).await, json!(frame), "the MP4 while it comes");
    }
    let (some, all) = stored(&world, "alice");
    assert!(some < all, "everything was there in {:?}", begun.elapsed());
    let seen = browser.play(0, 12).await;
    assert!(seen.iter().all(|(shown, expected)| shown == expected) && seen.len() == 12, "{seen:?}");
    assert!(seen[0].1 >= 122 && seen[11].1 > seen[0].1 + 5, "it plays on from where it was: {seen:?}");
    let heard = browser.run("done(video.webkitAudioDecodedByteCount);", 0, 0.0).await;
    assert!(heard.as_u64().unwrap() > 0);

    get.event("complete");
    for frame in [7, 399, 0, 200, 311, 42] {
        assert_eq!(browser.frame_at(1, frame).await, json!(frame), "the WebM");
    }
    let seen = browser.play(1, 12).await;
    assert!(seen.iter().all(|(shown, expected)| shown == expected), "{seen:?}");
    assert!(seen[0].1 >= 41 && seen[11].1 > seen[0].1 + 5, "{seen:?}");
    for frame in [399, 1, 250] {
        assert_eq!(browser.frame_at(0, frame).await, json!(frame), "the MP4");
    }
    if std::env::var_os(RENEW).is_some() {
        browser.frame_at(0, 253).await;
        let picture = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/player.png");
        fs::create_dir_all(picture.parent().unwrap()).unwrap();
        browser.driver.screenshot(&picture).await.unwrap();
        assert!(fs::metadata(&picture).unwrap().len() < 150_000);
    }
    browser.end().await;
}

/// A page elsewhere gets nothing, though it knows the address; and HTML of the content runs nothing.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium, chromium-driver and ffmpeg"]
async fn other_pages_and_the_contents_own_read_nothing() {
    let hostile = "<script>document.title = 'ran'</script><img src=x onerror=\"document.title='ran'\"><p id=seen>here</p>";
    let write = |directory: &Path| {
        fs::create_dir(directory).unwrap();
        fs::write(directory.join("page.html"), hostile).unwrap();
        fs::write(directory.join("secret.txt"), "secret").unwrap();
    };
    let world = World::of(write, &["--piece-length", "64K"]);
    let _seed = world.seed(&[]);
    world.fetch("alice");
    let (torrent, code) = (world.torrent(), world.voucher(&[]));
    let play = Running::start(&world.path("alice"), &["play", &torrent, "--serve", "--voucher", &code]);
    let url = play.event("serving")["url"].as_str().unwrap().to_owned();
    let browser = Browser::start().await;
    let driver = &browser.driver;
    driver.goto(format!("{url}0/page.html")).await.unwrap();
    assert_eq!(driver.find(By::Id("seen")).await.unwrap().text().await.unwrap(), "here");
    assert_ne!(driver.title().await.unwrap(), "ran");
    // Another origin: the tracker's own page will do.
    driver.goto(format!("{}/health", world.url())).await.unwrap();
    let read = |script: String| async move {
        driver.execute_async(script, Vec::new()).await.unwrap().json().clone()
    };
    let fetched = format!(
        "const done = arguments[0]; fetch('{url}1/secret.txt').then(r => r.text()).then(done, e => done('refused'));"
    );
    assert_eq!(read(fetched).await, json!("refused"));
    let blind = format!(
        "const done = arguments[0]; fetch('{url}1/secret.txt', {{mode: 'no-cors'}}).then(() => done('got'), e => done('refused'));"
    );
    assert_eq!(read(blind).await, json!("refused"));
    browser.end().await;
    tokio::time::timeout(Duration::from_secs(5), async { drop(play) }).await.unwrap();
}
