//! Certificates by an authority of the test's own, and a client that trusts it.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// A certificate, its key and its authority, in files.
pub struct Certificate {
    folder: tempfile::TempDir,
}

impl Certificate {
    /// For these names and addresses.
    pub fn for_names(names: &[&str]) -> Self {
        let mut authority = CertificateParams::new(Vec::new()).expect("no names");
        // Another name than the certificate has by itself: OpenSSL would take that for its own issuer.
        authority.distinguished_name.push(DnType::CommonName, "an authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority =
            CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("a key")).expect("an authority");
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names).expect("names").signed_by(&key, &authority).expect("signed");
        let folder = tempfile::tempdir().expect("a folder");
        let this = Self { folder };
        for (path, text) in [
            (this.authority(), authority.pem()),
            (this.certificate(), certificate.pem()),
            (this.key(), key.serialize_pem()),
        ] {
            std::fs::write(path, text).expect("written");
        }
        this
    }

    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("authority.pem")
    }

    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("certificate.pem")
    }

    pub fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    /// What a server of this certificate needs.
    pub fn acceptor(&self) -> tokio_rustls::TlsAcceptor {
        self.acceptor_of(&[])
    }

    /// The same, with these protocols offered.
    pub fn acceptor_of(&self, protocols: &[&str]) -> tokio_rustls::TlsAcceptor {
        let chain = CertificateDer::pem_file_iter(self.certificate()).expect("PEM").collect::<Result<_, _>>();
        let key = rustls::pki_types::PrivateKeyDer::from_pem_file(self.key()).expect("PEM");
        let mut config =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_no_client_auth()
                .with_single_cert(chain.expect("certificates"), key)
                .expect("a pair");
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        tokio_rustls::TlsAcceptor::from(Arc::new(config))
    }

    /// What a client that trusts the authority alone needs.
    pub fn client_config(&self) -> rustls::ClientConfig {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.authority()).expect("PEM")).expect("an authority");
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth()
    }

    /// A connection to the listener at a URL, as `front.test`, with these protocols offered.
    pub async fn connect(&self, url: &str, protocols: &[&str]) -> std::io::Result<TlsStream<TcpStream>> {
        let mut config = self.client_config();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let (_, address) = url.split_once("://").expect("a URL");
        let stream = TcpStream::connect(address).await?;
        let name = "front.test".try_into().expect("a name");
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// The settings that let a public listener have it.
    pub fn settings(&self) -> String {
        let (certificate, key) = (self.certificate(), self.key());
        format!("listen.tls.certificate = '{}'\nlisten.tls.key = '{}'\n", certificate.display(), key.display())
    }

    /// A client that trusts the authority alone.
    pub fn client(&self) -> Client<HttpsConnector<HttpConnector>, Full<Bytes>> {
        let connector = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(self.client_config()).https_only();
        Client::builder(TokioExecutor::new()).build(connector.enable_http1().build())
    }
}
