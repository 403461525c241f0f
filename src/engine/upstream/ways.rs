//! The ways to the upstream: TCP, TLS, and whom to trust.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::uri::Scheme;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::addresses::{Addresses, Resolve};
use super::connect_failure::{ConnectFailure, Stage};
use super::settings::{BaseUrl, UpstreamSettings};
use crate::engine::metrics::Metrics;
use crate::policy::addresses::Target;

/// What one attempt to connect needs.
pub(super) struct Ways {
    /// Where they lead.
    pub(super) addresses: Arc<Addresses>,
    /// By URL, for those with https: what the certificate must be for.
    names: Vec<Option<ServerName<'static>>>,
    tls: TlsConnector,
    /// The same, with HTTP/2 offered.
    tls_with_http2: TlsConnector,
    /// How long connecting may take in all.
    pub(super) connect_timeout: Duration,
    /// How long the upstream may take no byte.
    pub(super) stall_timeout: Duration,
}

/// Bytes to and from the upstream.
pub(super) type Wire = Either<TcpStream, TlsStream<TcpStream>>;

impl Ways {
    /// Reads the system's certificates, or those that came with the program if there are none, and `ca_file`.
    pub(super) fn new(settings: &UpstreamSettings, resolve: Resolve, metrics: Arc<Metrics>) -> Result<Self, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS: {error}"))?
            .with_root_certificates(roots(settings.ca_file.as_deref(), "upstream.ca_file")?)
            .with_no_client_auth();
        let mut tls_with_http2 = tls.clone();
        tls_with_http2.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let [tls, tls_with_http2] = [tls, tls_with_http2].map(|tls| TlsConnector::from(Arc::new(tls)));
        let of_url = |url: &BaseUrl| {
            if url.scheme != Scheme::HTTPS {
                return Ok(None);
            }
            let (name, setting) = match &settings.server_name {
                Some(name) => (name.as_str(), "upstream.host"),
                None => (url.host(), "upstream.url"),
            };
            let name = ServerName::try_from(name.to_owned()).map_err(|error| format!("{setting}: {error}"))?;
            Ok(Some(name))
        };
        let names = settings.urls().map(of_url).collect::<Result<_, String>>()?;
        let addresses = Arc::new(Addresses::new(settings, resolve, metrics));
        let UpstreamSettings { connect_timeout, stall_timeout, .. } = *settings;
        Ok(Self { addresses, names, tls, tls_with_http2, connect_timeout, stall_timeout })
    }

    /// Connects to one address, with HTTP/2 offered or not; says when only TLS is missing.
    pub(super) async fn open(
        &self,
        target: Target,
        http2: bool,
        is_connected: &AtomicBool,
    ) -> Result<Wire, (Stage, ConnectFailure)> {
        let failed = |stage| move |error: io::Error| (stage, ConnectFailure::of(&error, stage));
        let tcp = TcpStream::connect(target.address).await.map_err(failed(Stage::Address))?;
        tcp.set_nodelay(true).map_err(failed(Stage::Address))?;
        is_connected.store(true, Ordering::Release);
        let Some(name) = self.names.get(target.url).cloned().flatten() else { return Ok(Wire::Left(tcp)) };
        let tls = if http2 { &self.tls_with_http2 } else { &self.tls };
        Ok(Wire::Right(tls.connect(name, tcp).await.map_err(failed(Stage::Tls))?))
    }
}

/// The system's certificates, or those that came with the program if there are none, and those of a file.
///
/// # Errors
/// In words, and that the file was of this setting.
pub(in crate::engine) fn roots(ca_file: Option<&Path>, setting: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    if let Some(file) = ca_file {
        add_certificates(&mut roots, file).map_err(|what| format!("{setting}: {what}"))?;
    }
    Ok(roots)
}

/// Whether a file can be `upstream.ca_file`.
///
/// # Errors
/// In words, and what to do.
pub fn check_certificates(file: &Path) -> Result<(), String> {
    add_certificates(&mut RootCertStore::empty(), file)
}

fn add_certificates(roots: &mut RootCertStore, file: &Path) -> Result<(), String> {
    let shown = file.display();
    let text = std::fs::read(file)
        .map_err(|error| format!("{shown} cannot be read ({error}); see that it is there and may be read"))?;
    let unfit = |what: &dyn std::fmt::Display| format!("{shown} {what}; write certificates in PEM into it");
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| unfit(&format!("is not PEM ({error})")))?;
    if certificates.is_empty() {
        return Err(unfit(&"holds no certificate"));
    }
    for certificate in certificates {
        roots.add(certificate).map_err(|error| unfit(&format!("holds a certificate that cannot be used ({error})")))?;
    }
    Ok(())
}
