//! TLS by `rustls`, driven as bytes in, bytes out: the reactor and the protocols do not know of it. Here: the
//! certificates, read at start and again on SIGHUP; in [`stream`] what happens to the bytes of one connection.

mod pem;
pub mod stream;

use crate::connection::Kind;
use crate::settings::{ClientAuth, TlsSettings};
use pem::Section;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};
use rustls::server::{ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use tracing::warn;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Of a file of certificates or of a key.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Sessions of TLS 1.2 that can be taken up again by clients without tickets.
const SESSIONS_MAX: usize = 256;

/// A file that is of no use, and why.
#[derive(Debug)]
pub struct TlsError {
    path: PathBuf,
    /// From 1; 0: the file as a whole.
    line: usize,
    reason: String,
}

impl std::fmt::Display for TlsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.path.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// What connections that are accepted from now on are served with.
pub struct Tls {
    settings: TlsSettings,
    /// Swapped as a whole; read once a connection.
    configs: RwLock<Configs>,
}

/// One for each protocol: they differ in the name that ALPN gives it (RFC 7301).
struct Configs {
    http: Arc<ServerConfig>,
    mqtt: Arc<ServerConfig>,
}

impl Tls {
    /// `None` where no certificate is configured.
    ///
    /// # Errors
    /// A file that cannot be read or makes no sense.
    pub fn load(settings: &TlsSettings) -> Result<Option<Tls>, TlsError> {
        let Some(configs) = read(settings)? else { return Ok(None) };
        Ok(Some(Tls { settings: settings.clone(), configs: RwLock::new(configs) }))
    }

    /// Reads the files again. Connections that are there go on as they are, and so does everything on an error.
    ///
    /// # Errors
    /// As [`Tls::load`].
    pub fn reload(&self) -> Result<(), TlsError> {
        if let Some(configs) = read(&self.settings)? {
            *self.configs.write().unwrap_or_else(PoisonError::into_inner) = configs;
        }
        Ok(())
    }

    /// What a new connection of such a listener is served with.
    pub fn config(&self, kind: Kind) -> Arc<ServerConfig> {
        let configs = self.configs.read().unwrap_or_else(PoisonError::into_inner);
        match kind {
            Kind::Http | Kind::Https => configs.http.clone(),
            Kind::Mqtt | Kind::Mqtts => configs.mqtt.clone(),
        }
    }
}

fn read(settings: &TlsSettings) -> Result<Option<Configs>, TlsError> {
    let (Some(certificate), Some(key)) = (&settings.certificate, &settings.key) else { return Ok(None) };
    let provider = Arc::new(ring::default_provider());
    let identity = read_identity(certificate, key, &provider)?;
    let roots = match &settings.client_ca {
        Some(path) if settings.client_auth() != ClientAuth::None => Some((path, read_roots(path)?)),
        _ => None,
    };
    let config = |protocol: &str| {
        let whole = |path: &Path, reason: String| TlsError { path: path.to_owned(), line: 0, reason };
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| whole(certificate, error.to_string()))?;
        let builder = match &roots {
            None => builder.with_no_client_auth(),
            Some((path, roots)) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
                let verifier = match settings.client_auth() {
                    ClientAuth::Required => verifier,
                    _ => verifier.allow_unauthenticated(),
                };
                builder.with_client_cert_verifier(verifier.build().map_err(|error| whole(path, error.to_string()))?)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.clone())));
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        // Both new each time the files are read: what an older CA has vouched for is not taken up again.
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
        config.ticketer = ring::Ticketer::new().map_err(|error| whole(key, error.to_string()))?;
        Ok(Arc::new(config))
    };
    Ok(Some(Configs { http: config("http/1.1")?, mqtt: config("mqtt")? }))
}

/// The server's certificate chain and its key.
fn read_identity(certificate: &Path, key: &Path, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, TlsError> {
    let mut chain = Vec::new();
    for section in read_certificates(certificate)? {
        chain.push(CertificateDer::from(section.der));
    }
    let sections = read_pem(key)?;
    let secret = sections.into_iter().find(|section| section.label.ends_with("PRIVATE KEY"));
    let Some(Section { label, line, der }) = secret else {
        return Err(TlsError { path: key.to_owned(), line: 0, reason: "holds no private key in PEM".to_owned() });
    };
    let fail = |reason: String| TlsError { path: key.to_owned(), line, reason };
    let secret = match label.as_str() {
        "PRIVATE KEY" => PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der)),
        "RSA PRIVATE KEY" => PrivateKeyDer::Pkcs1(PrivatePkcs1KeyDer::from(der)),
        "EC PRIVATE KEY" => PrivateKeyDer::Sec1(PrivateSec1KeyDer::from(der)),
        "ENCRYPTED PRIVATE KEY" => return Err(fail("the key is encrypted (expected one without a passphrase)".into())),
        label => return Err(fail(format!("a {label} cannot be used (expected PKCS #8, RSA or EC)"))),
    };
    match CertifiedKey::from_der(chain, secret, provider) {
        Ok(identity) => Ok(Arc::new(identity)),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(fail(format!("is not the key of the first certificate in {}", certificate.display())))
        }
        Err(error) => Err(fail(error.to_string())),
    }
}

/// Those whose signature makes a client's certificate good.
fn read_roots(path: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for Section { line, der, .. } in read_certificates(path)? {
        let fail = |error: rustls::Error| TlsError { path: path.to_owned(), line, reason: error.to_string() };
        roots.add(CertificateDer::from(der)).map_err(fail)?;
    }
    Ok(Arc::new(roots))
}

/// All certificates of a file, at least one.
fn read_certificates(path: &Path) -> Result<Vec<Section>, TlsError> {
    let mut certificates = read_pem(path)?;
    certificates.retain(|section| section.label == "CERTIFICATE");
    let fail = |line, reason: String| TlsError { path: path.to_owned(), line, reason };
    if certificates.is_empty() {
        return Err(fail(0, "holds no certificate in PEM".to_owned()));
    }
    for Section { line, der, .. } in &certificates {
        let (_, parsed) =
            X509Certificate::from_der(der).map_err(|error| fail(*line, format!("is not a certificate ({error})")))?;
        let validity = parsed.validity();
        if !validity.is_valid() {
            let (from, to) = (validity.not_before, validity.not_after);
            warn!("{}:{line}: the certificate is not valid now, but from {from} to {to}", path.display());
        }
    }
    Ok(certificates)
}

fn read_pem(path: &Path) -> Result<Vec<Section>, TlsError> {
    let fail = |line, reason: String| TlsError { path: path.to_owned(), line, reason };
    let io = |error: std::io::Error| fail(0, error.to_string());
    let file = File::open(path).map_err(io)?;
    let mode = file.metadata().map_err(io)?.mode();
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(io)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(fail(0, format!("is too large (expected at most {FILE_BYTES_MAX} bytes)")));
    }
    let sections = pem::parse(&text).map_err(|(line, reason)| fail(line, reason))?;
    let is_secret = sections.iter().any(|section| section.label.ends_with("PRIVATE KEY"));
    if is_secret && mode & 0o077 != 0 {
        let mode = mode & 0o777;
        warn!("{}: the private key is open to other users (mode {mode:03o}, expected 600)", path.display());
    }
    Ok(sections)
}

/// Whom a client's certificate names: its CommonName. `None`: nobody.
///
/// # Errors
/// It is not valid (any more): a session that is taken up again was checked when it began.
fn name_of(certificate: &CertificateDer<'_>) -> Result<Option<Arc<str>>, &'static str> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return Err("no X.509 certificate") };
    if !parsed.validity().is_valid() {
        return Err("the client's certificate has expired");
    }
    let name = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    Ok(name.filter(|name| !name.is_empty()).map(Arc::from))
}
