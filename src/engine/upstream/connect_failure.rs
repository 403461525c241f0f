//! Why there is no connection to the upstream: name, address, TLS.

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};

use rustls::{CertificateError, Error as TlsError};

use crate::engine::metrics::ErrorClass;

/// How far an attempt to connect had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The name is being looked up.
    Name,
    /// The address is being connected to.
    Address,
    /// The two sides agree on TLS.
    Tls,
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectFailure {
    /// Its class.
    pub class: ErrorClass,
    /// The cause in words.
    pub words: &'static str,
}

impl ConnectFailure {
    /// `upstream.connect_timeout` came first.
    pub(super) fn too_late(stage: Stage) -> Self {
        let (class, words) = match stage {
            Stage::Name => (ErrorClass::DnsTimeout, "its name was not resolved in time"),
            Stage::Address => (ErrorClass::ConnectionTimeout, "it did not take the connection in time"),
            Stage::Tls => (ErrorClass::ConnectionTimeout, "the TLS handshake was not over in time"),
        };
        Self { class, words }
    }

    /// No name of it has an address.
    pub(super) fn unresolved() -> Self {
        Self { class: ErrorClass::DnsError, words: "its name cannot be resolved" }
    }

    /// What an error says that ended the attempt at this stage.
    pub(super) fn of(error: &(dyn Error + 'static), stage: Stage) -> Self {
        if let Some(error) = find::<TlsError>(error) {
            return Self::of_tls(error);
        }
        match find::<io::Error>(error) {
            Some(error) => Self::of_io(error, stage),
            None => Self { class: ErrorClass::DestinationUnavailable, words: "it cannot be connected to" },
        }
    }

    fn of_tls(error: &TlsError) -> Self {
        let (class, words) = match error {
            TlsError::InvalidCertificate(why) => (ErrorClass::TlsCertificateError, of_certificate(why)),
            TlsError::AlertReceived(_) => (ErrorClass::TlsAlertReceived, "it refused the TLS handshake"),
            // The first bytes are no TLS at all.
            TlsError::InvalidMessage(_) => {
                (ErrorClass::TlsProtocolError, "it does not speak TLS there; is it to be asked with http?")
            }
            TlsError::PeerIncompatible(_) => {
                (ErrorClass::TlsProtocolError, "it offers no TLS that is accepted: 1.2 or 1.3, with current ciphers")
            }
            _ => (ErrorClass::TlsProtocolError, "the TLS handshake failed"),
        };
        Self { class, words }
    }

    fn of_io(error: &io::Error, stage: Stage) -> Self {
        let in_tls = stage == Stage::Tls;
        let (class, words) = match error.kind() {
            _ if is_of_descriptors(error) => {
                (ErrorClass::ProxyInternalError, "this side has no file descriptor left for a connection")
            }
            ErrorKind::ConnectionRefused => (ErrorClass::ConnectionRefused, "it refused the connection"),
            ErrorKind::TimedOut => return Self::too_late(stage),
            ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NotConnected
            | ErrorKind::AddrNotAvailable
            | ErrorKind::NetworkDown => (ErrorClass::DestinationIpUnroutable, "there is no way to its address"),
            ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe
            | ErrorKind::UnexpectedEof
                if in_tls =>
            {
                (ErrorClass::ConnectionTerminated, "it closed the connection during the TLS handshake")
            }
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::UnexpectedEof => {
                (ErrorClass::ConnectionTerminated, "it closed the connection at once")
            }
            _ => (ErrorClass::DestinationUnavailable, "it cannot be connected to"),
        };
        Self { class, words }
    }
}

/// Too many files are open, in this process or on this machine (`EMFILE`, `ENFILE`).
fn is_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(23 | 24))
}

fn of_certificate(why: &CertificateError) -> &'static str {
    match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "its certificate has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet; is this machine's clock right?"
        }
        CertificateError::Revoked => "its certificate was revoked",
        CertificateError::UnknownIssuer => {
            "its certificate is signed by nobody who is trusted here; upstream.ca_file may name an authority"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "its certificate is for another name"
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its certificate is not meant for servers"
        }
        CertificateError::BadEncoding | CertificateError::BadSignature => "its certificate is broken",
        _ => "its certificate is not accepted",
    }
}

impl fmt::Display for ConnectFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words)
    }
}

impl Error for ConnectFailure {}

/// The first cause of this kind. What is inside an I/O error is not among its sources.
fn find<'e, T: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e T> {
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    if let Some(inner) = inner
        && let Some(found) = find::<T>(inner)
    {
        return Some(found);
    }
    error.downcast_ref::<T>().or_else(|| find(error.source()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_an_attempt_is_told_apart() {
        let kind = |kind: ErrorKind| io::Error::from(kind);
        let tls = |error: TlsError| io::Error::other(io::Error::new(ErrorKind::InvalidData, error));
        let certificate = |why| tls(TlsError::InvalidCertificate(why));
        for (error, stage, class) in [
            (io::Error::from_raw_os_error(24), Stage::Name, ErrorClass::ProxyInternalError),
            (io::Error::from_raw_os_error(24), Stage::Address, ErrorClass::ProxyInternalError),
            (kind(ErrorKind::ConnectionRefused), Stage::Address, ErrorClass::ConnectionRefused),
            (kind(ErrorKind::TimedOut), Stage::Address, ErrorClass::ConnectionTimeout),
            (kind(ErrorKind::NetworkUnreachable), Stage::Address, ErrorClass::DestinationIpUnroutable),
            (kind(ErrorKind::HostUnreachable), Stage::Address, ErrorClass::DestinationIpUnroutable),
            (kind(ErrorKind::PermissionDenied), Stage::Address, ErrorClass::DestinationUnavailable),
            (kind(ErrorKind::ConnectionReset), Stage::Address, ErrorClass::ConnectionTerminated),
            (kind(ErrorKind::UnexpectedEof), Stage::Tls, ErrorClass::ConnectionTerminated),
            (certificate(CertificateError::Expired), Stage::Tls, ErrorClass::TlsCertificateError),
            (tls(TlsError::HandshakeNotComplete), Stage::Tls, ErrorClass::TlsProtocolError),
        ] {
            assert_eq!(ConnectFailure::of(&error, stage).class, class, "{error:?}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_certificate_is_said() {
        for (why, word) in [
            (CertificateError::Expired, "expired"),
            (CertificateError::NotValidYet, "clock"),
            (CertificateError::UnknownIssuer, "ca_file"),
            (CertificateError::NotValidForName, "another name"),
            (CertificateError::BadEncoding, "broken"),
            (CertificateError::ApplicationVerificationFailure, "not accepted"),
        ] {
            assert!(of_certificate(&why).contains(word), "{why:?}");
        }
    }
}
