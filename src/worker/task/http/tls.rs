//! TLS towards a server: whom to believe.

use std::sync::Arc;

use serde::Deserialize;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{self, CryptoProvider};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use super::super::child::Failure;

/// `tls`, as the params have it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Trust {
    /// A file of certificates to believe in place of the system's, on the worker.
    #[serde(default)]
    ca: Option<String>,
    /// Whether the certificate of the server is looked at.
    #[serde(default = "yes")]
    verify: bool,
}

fn yes() -> bool {
    true
}

impl Default for Trust {
    fn default() -> Self {
        Self { ca: None, verify: true }
    }
}

impl Trust {
    /// For connections to servers that are believed.
    ///
    /// # Errors
    ///
    /// If there are no certificates to believe.
    pub(super) fn config(&self) -> Result<ClientConfig, Failure> {
        let failed = |error: Error| Failure::lasting(format!("TLS cannot be set up: {error}"));
        let provider = Arc::new(crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().map_err(failed)?;
        if !self.verify {
            let verifier = Arc::new(Anyone(provider));
            let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
            return Ok(builder.with_no_client_auth());
        }
        let roots = Arc::new(self.roots()?);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
        let verifier = verifier.map_err(|error| {
            Failure::lasting(format!("no certificate authority is known here: {error}"))
        })?;
        Ok(builder.with_webpki_verifier(verifier).with_no_client_auth())
    }

    fn roots(&self) -> Result<RootCertStore, Failure> {
        let mut roots = RootCertStore::empty();
        let Some(ca) = &self.ca else {
            // The system has odd ones at times; those that can be used are enough.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            return Ok(roots);
        };
        let failed = |error: &dyn std::fmt::Display| {
            Failure::lasting(format!("the certificates in {ca} cannot be used: {error}"))
        };
        let found = CertificateDer::pem_file_iter(ca).map_err(|error| failed(&error))?;
        for certificate in found {
            let certificate = certificate.map_err(|error| failed(&error))?;
            roots.add(certificate).map_err(|error| failed(&error))?;
        }
        Ok(roots)
    }
}

/// Believes whoever answers, but not that a signature is right which is wrong.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.0.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.0.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
