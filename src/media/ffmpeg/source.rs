//! An input as `ffmpeg` takes it, so that no name can smuggle in an option, a protocol or a fetch.
use std::path::{Path, PathBuf};

use super::FfmpegError;

/// Addresses that are read, by how they begin.
const SCHEMES: [&str; 11] = ["http", "https", "rtsp", "rtsps", "rtmp", "rtmps", "rtp", "udp", "tcp", "srt", "file"];
/// What a plain file may lead to: a hostile playlist must not fetch.
const LOCAL: &str = "file,pipe,crypto,data";
/// What an address may lead to: a hostile stream must not read files.
const REMOTE: &str = "http,https,httpproxy,tls,tcp,udp,rtp,srtp,rtsp,rtsps,rtmp,rtmps,rtmpt,rtmpts,srt,crypto,data";

/// Where frames come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    name: String,
    kind: Kind,
    address: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    File,
    /// A capture device and its input format.
    Device(&'static str),
    /// An address and how it begins.
    Address(&'static str),
}

impl Source {
    /// Tells files, addresses and capture devices apart.
    ///
    /// # Errors
    /// [`FfmpegError::UnknownProtocol`].
    pub fn new(input: &str) -> Result<Self, FfmpegError> {
        if let Some(device) = Self::device(input) {
            return Ok(device);
        }
        let of = |kind, address: String| Self { name: input.to_owned(), kind, address };
        let address = input.split_once("://").filter(|_| !Path::new(input).exists());
        let Some((scheme, rest)) = address else {
            // Without this a file called `concat:a|b` would be a protocol, and one called `-x` an option.
            return Ok(of(Kind::File, format!("file:{input}")));
        };
        match SCHEMES.into_iter().find(|known| scheme.eq_ignore_ascii_case(known)) {
            Some("file") => Ok(of(Kind::File, format!("file:{rest}"))),
            Some(scheme) => Ok(of(Kind::Address(scheme), format!("{scheme}://{rest}"))),
            None => Err(FfmpegError::UnknownProtocol {
                input: input.to_owned(),
                scheme: scheme.to_owned(),
                allowed: SCHEMES.map(|scheme| format!("{scheme}://")).join(", "),
            }),
        }
    }

    /// A capture device: `/dev/video0`, or the platform's input format and the name that it gives the device.
    pub fn device(input: &str) -> Option<Self> {
        let of = |format, address: &str| Self {
            name: input.to_owned(),
            kind: Kind::Device(format),
            address: address.to_owned(),
        };
        if input.starts_with("/dev/video") {
            return Some(of("v4l2", input));
        }
        ["v4l2", "avfoundation", "dshow"].into_iter().find_map(|format| {
            let address = input.strip_prefix(format)?.strip_prefix(':')?;
            Some(of(format, address))
        })
    }

    /// Whether frames come when they come. Of an address only its length, where it has one, tells a file.
    pub fn is_live(&self, has_duration: bool) -> bool {
        match self.kind {
            Kind::File => false,
            Kind::Address("http" | "https") => !has_duration,
            Kind::Device(_) | Kind::Address(_) => true,
        }
    }

    /// Whether this may be opened a second time for its sound: a camera or a stream has moved on.
    pub fn is_file(&self) -> bool {
        matches!(self.kind, Kind::File | Kind::Address("http" | "https"))
    }

    /// The name that the user gave.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(&self.name)
    }

    /// Arguments up to and with the input; those for a `live` one wait for as little as can be.
    pub fn arguments(&self, live: bool) -> Vec<String> {
        let mut arguments = match self.kind {
            Kind::File => vec!["-protocol_whitelist", LOCAL],
            Kind::Device(format) => vec!["-f", format],
            // Over UDP lost packets smear the pictures.
            Kind::Address("rtsp" | "rtsps") => vec!["-protocol_whitelist", REMOTE, "-rtsp_transport", "tcp"],
            // In microseconds: a server that falls silent ends the stream.
            Kind::Address("http" | "https") => vec!["-protocol_whitelist", REMOTE, "-rw_timeout", "15000000"],
            Kind::Address(_) => vec!["-protocol_whitelist", REMOTE],
        };
        if live {
            arguments.extend(["-fflags", "nobuffer", "-flags", "low_delay"]);
        }
        arguments.extend(["-i", &self.address]);
        arguments.into_iter().map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_smuggle_in_an_option_or_a_protocol() {
        for name in ["-y", "concat:a|b", "http:x", "a b", "pipe:0", "subfile,,start,0,end,9,,:x"] {
            let arguments = Source::new(name).unwrap().arguments(false);
            assert_eq!(arguments, ["-protocol_whitelist", LOCAL, "-i", &format!("file:{name}")]);
        }
        for name in ["concat://x", "concat:http://a|b", "lavfi://x", "-i http://x", "://"] {
            let error = Source::new(name).unwrap_err();
            assert!(matches!(error, FfmpegError::UnknownProtocol { .. }), "{name}");
            assert!(error.to_string().contains("rtsp://"), "{error}");
        }
    }

    #[test]
    fn addresses_and_devices_get_their_arguments() {
        let rtsp = Source::new("RTSP://camera/1").unwrap();
        assert_eq!(rtsp.arguments(true)[2..4], ["-rtsp_transport", "tcp"]);
        assert!(rtsp.arguments(true).ends_with(&["low_delay".into(), "-i".into(), "rtsp://camera/1".into()]));
        assert!(rtsp.is_live(true) && !rtsp.is_file());
        assert!(!rtsp.arguments(true)[1].split(',').any(|protocol| protocol == "file"));
        let http = Source::new("https://host/clip.mp4").unwrap();
        assert!(http.is_live(false) && !http.is_live(true) && http.is_file());
        let local = Source::new("file:///clips/a.mp4").unwrap();
        assert!(local.arguments(false).ends_with(&["-i".into(), "file:/clips/a.mp4".into()]));
        for (name, format, address) in [
            ("/dev/video0", "v4l2", "/dev/video0"),
            ("v4l2:/dev/v4l/by-id/x", "v4l2", "/dev/v4l/by-id/x"),
            ("avfoundation:0", "avfoundation", "0"),
            ("dshow:video=Camera 1", "dshow", "video=Camera 1"),
        ] {
            let device = Source::device(name).unwrap();
            assert!(device.is_live(false));
            assert_eq!(device.arguments(false), ["-f", format, "-i", address]);
        }
        assert_eq!(Source::device("video.mp4"), None);
    }
}
