//! TLS towards clients: a certificate and its key, read again while connections go on.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use x509_cert::der::Decode;

/// `listen.tls`: where certificate and key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// `listen.tls.certificate`: PEM, the server's own first, then those up to the authority.
    pub certificate: PathBuf,
    /// `listen.tls.key`: PEM.
    pub key: PathBuf,
}

/// The pair in force. Connections keep the one they began with.
pub struct Tls {
    pair: ArcSwap<Pair>,
    /// What was last read, good or bad. Locked for a comparison, never across an await.
    seen: Mutex<Files>,
}

/// A certificate with its key, as rustls takes it.
struct Pair {
    config: Arc<ServerConfig>,
    /// When the certificate ends, since 1970; none if that cannot be read.
    not_after: Option<Duration>,
}

/// The bytes of both files.
#[derive(Clone, PartialEq, Eq)]
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// What came of reading the pair again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// The files are as they were.
    Same,
    /// New connections get the new pair.
    Renewed,
}

impl Tls {
    /// Reads the pair.
    ///
    /// # Errors
    /// In words, with the setting that is wrong.
    pub fn load(settings: &TlsSettings) -> Result<Self, String> {
        let files = Files::read(settings)?;
        let pair = files.pair(settings)?;
        Ok(Self { pair: ArcSwap::from_pointee(pair), seen: Mutex::new(files) })
    }

    /// Reads the pair again. A bad one leaves the good one in force, and is told of once.
    ///
    /// # Errors
    /// In words, with the setting that is wrong.
    pub fn renew(&self, settings: &TlsSettings) -> Result<Renewal, String> {
        let files = Files::read(settings)?;
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen == files {
                return Ok(Renewal::Same);
            }
            seen.clone_from(&files);
        }
        self.pair.store(Arc::new(files.pair(settings)?));
        Ok(Renewal::Renewed)
    }

    /// What makes a connection secure, with the pair in force now.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.pair.load().config.clone())
    }

    /// When the certificate in force ends, as seconds since 1970; none if that cannot be read.
    pub fn not_after(&self) -> Option<i64> {
        self.pair.load().not_after.and_then(|end| i64::try_from(end.as_secs()).ok())
    }
}

impl Files {
    fn read(settings: &TlsSettings) -> Result<Self, String> {
        let read = |setting: &str, file: &Path| std::fs::read(file).map_err(|error| mistake(setting, file, &error));
        Ok(Self {
            certificate: read("listen.tls.certificate", &settings.certificate)?,
            key: read("listen.tls.key", &settings.key)?,
        })
    }

    /// HTTP/2 is offered first, then HTTP/1.1.
    fn pair(&self, settings: &TlsSettings) -> Result<Pair, String> {
        let TlsSettings { certificate, key } = settings;
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&self.certificate)
            .collect::<Result<_, _>>()
            .map_err(|error| mistake("listen.tls.certificate", certificate, &error))?;
        let Some(own) = chain.first() else {
            return Err(mistake("listen.tls.certificate", certificate, &"holds no certificate; it must be PEM"));
        };
        let not_after = x509_cert::Certificate::from_der(own)
            .ok()
            .map(|certificate| certificate.tbs_certificate.validity.not_after.to_unix_duration());
        let private = PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| {
            mistake("listen.tls.key", key, &"holds no key that can be read; it must be PEM, without a password")
        })?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS: {error}"))?
            .with_no_client_auth()
            .with_single_cert(chain, private)
            .map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => {
                    mistake("listen.tls.key", key, &"is not the key of the certificate")
                }
                error => mistake("listen.tls.certificate", certificate, &error),
            })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Pair { config: Arc::new(config), not_after })
    }
}

fn mistake(setting: &str, file: &Path, what: &dyn std::fmt::Display) -> String {
    format!("{setting}: {}: {what}", file.display())
}

/// The metric label of a handshake that failed: what a stranger sends is not told.
pub fn handshake_error(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "tls_left",
        io::ErrorKind::TimedOut => "tls_timeout",
        _ => "tls_refused",
    }
}
