//! Brings images into containerd through its own API, as a pull by CRI would leave them.

use std::collections::HashMap;
use std::io::{Read, SeekFrom};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_base::error::Context;
use gantry_base::{Class, Clock, Error, Result};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::archive::{Archive, ArchivedImage, Blob, Content, Source};
use super::build::ImageSource;
use crate::grpc::{CRI_NAMESPACE, GrpcRuntime, NAMESPACE_HEADER};
use crate::proto::containerd::services::content::v1::content_client::ContentClient;
use crate::proto::containerd::services::content::v1::{InfoRequest, WriteAction, WriteContentRequest};
use crate::proto::containerd::services::images::v1::images_client::ImagesClient;
use crate::proto::containerd::services::images::v1::{CreateImageRequest, Image, UpdateImageRequest};
use crate::proto::containerd::services::leases::v1::leases_client::LeasesClient;
use crate::proto::containerd::services::leases::v1::{CreateRequest, DeleteRequest};
use crate::proto::containerd::types;
use crate::{RpcError, Runtime, v1};
use gantry_base::image::repository;

/// How much of a blob goes into one message.
const CHUNK_BYTES: usize = 1024 * 1024;

/// How many chunks are read ahead.
const CHUNKS_AHEAD: usize = 4;

/// How long containerd keeps what an import that died has written.
const LEASE_LIFE: Duration = Duration::from_secs(3600);

/// How long CRI may take to notice an image that was imported.
const NOTICE_DEADLINE: Duration = Duration::from_secs(30);

/// How often it is asked.
const NOTICE_INTERVAL: Duration = Duration::from_millis(10);

/// The header that names the lease which holds new content.
const LEASE_HEADER: &str = "containerd-lease";

/// CRI's label on the images that it knows.
const MANAGED_LABEL: (&str, &str) = ("io.cri-containerd.image", "managed");

/// CRI's label on images that are not to be collected.
const PINNED_LABEL: (&str, &str) = ("io.cri-containerd.pinned", "pinned");

/// Imports images into the containerd behind a [`GrpcRuntime`].
#[derive(Clone)]
pub struct ImageImporter {
    runtime: GrpcRuntime,
    clock: Arc<dyn Clock>,
}

/// An image that was imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The names it has now.
    pub names: Vec<String>,
    /// Its id: the digest of its configuration.
    pub id: String,
    /// The digest of its manifest or index.
    pub digest: String,
}

/// Adds the namespace, and the lease if there is one, to each call.
#[derive(Clone)]
struct Headers {
    lease: Option<AsciiMetadataValue>,
}

impl tonic::service::Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let headers = request.metadata_mut();
        headers.insert(NAMESPACE_HEADER, AsciiMetadataValue::from_static(CRI_NAMESPACE));
        if let Some(lease) = &self.lease {
            headers.insert(LEASE_HEADER, lease.clone());
        }
        Ok(request)
    }
}

type Calls = InterceptedService<Channel, Headers>;

impl ImageImporter {
    /// An importer for the containerd at the socket of `runtime`.
    pub fn new(runtime: GrpcRuntime, clock: Arc<dyn Clock>) -> Self {
        Self { runtime, clock }
    }

    /// Imports all images of an archive, and returns when CRI knows them.
    ///
    /// # Errors
    /// [`Class::Refused`] if the runtime is not containerd, [`Class::Invalid`] if an image has no name or its
    /// bytes do not fit its digests, [`Class::Retry`] if containerd cannot be reached.
    pub async fn import(&self, archive: Archive) -> Result<Vec<Imported>> {
        self.require_containerd().await?;
        let lease = self.lease().await?;
        let imported = self.import_with(archive, &lease).await;
        let mut leases = LeasesClient::new(self.calls(None));
        let request = DeleteRequest { id: lease, sync: false };
        let released = leases.delete(request).await.map_err(|status| RpcError::from_status(&status));
        let imported = imported?;
        released.map_err(|error| error.while_doing("release the lease of an import"))?;
        Ok(imported)
    }

    /// Imports an image unless this very image is there under this name and pinned.
    ///
    /// # Errors
    /// As [`ImageImporter::import`].
    pub async fn ensure(&self, image: &ImageSource) -> Result<()> {
        let spec = v1::ImageSpec { image: image.name.clone(), ..Default::default() };
        let present = self.runtime.image_status(&spec, false).await?.image;
        if present.is_some_and(|present| present.id == super::digest(&image.config)) {
            return Ok(());
        }
        self.import(Archive::of(image)?).await.map(drop)
    }

    async fn require_containerd(&self) -> Result<()> {
        let version = self.runtime.version().await?;
        if version.runtime_name == "containerd" {
            return Ok(());
        }
        let text = format!("images can only be loaded into containerd, not into {}", version.runtime_name);
        Err(Error::refused(text))
    }

    fn calls(&self, lease: Option<AsciiMetadataValue>) -> Calls {
        InterceptedService::new(self.runtime.channel(), Headers { lease })
    }

    /// Creates the lease that keeps new content until an image refers to it.
    async fn lease(&self) -> Result<String> {
        let expires = jiff::Timestamp::try_from(self.clock.now() + LEASE_LIFE)
            .context(Class::Bug, "the time of a lease")?
            .strftime("%Y-%m-%dT%H:%M:%SZ");
        let labels = HashMap::from([("containerd.io/gc.expire".to_owned(), expires.to_string())]);
        let request = CreateRequest { id: unique("gantry-import"), labels };
        let answer = LeasesClient::new(self.calls(None)).create(request).await;
        let lease = answer.map_err(|status| RpcError::from_status(&status))?.into_inner().lease;
        Ok(lease.ok_or_else(|| Error::retry("containerd made a lease without a name"))?.id)
    }

    async fn import_with(&self, archive: Archive, lease: &str) -> Result<Vec<Imported>> {
        let header = AsciiMetadataValue::try_from(lease).context(Class::Bug, "the name of a lease")?;
        let (source, images) = archive.into_parts();
        let source = Arc::new(parking_lot::Mutex::new(source));
        let mut imported = Vec::new();
        for image in images {
            let about = image.names.first().cloned().unwrap_or_else(|| image.target.digest.clone());
            let done = self.import_one(image, &source, &header).await;
            imported.push(done.map_err(|error| error.while_doing(format_args!("import {about}")))?);
        }
        Ok(imported)
    }

    async fn import_one(
        &self,
        image: ArchivedImage,
        source: &Arc<parking_lot::Mutex<Box<dyn Source>>>,
        lease: &AsciiMetadataValue,
    ) -> Result<Imported> {
        if image.names.is_empty() {
            return Err(Error::invalid("the image has no name in the archive: give it one with a tag"));
        }
        let id = image.id.clone().ok_or_else(|| Error::invalid("the image has no configuration"))?;
        let mut content = ContentClient::new(self.calls(Some(lease.clone())));
        for blob in &image.blobs {
            self.write(&mut content, blob, source).await?;
        }
        // What a pull by CRI leaves: the id, the digest and the tag, each an image by itself.
        let repository = repository(&image.names[0]).to_owned();
        let by_digest = format!("{repository}@{}", image.target.digest);
        for name in [&id, &by_digest].into_iter().chain(&image.names) {
            self.name(name, &image).await?;
        }
        for name in [&id].into_iter().chain(&image.names) {
            self.wait_until_known(name, &id).await?;
        }
        Ok(Imported { names: image.names, id, digest: image.target.digest })
    }

    /// Writes one blob unless containerd has it.
    async fn write(
        &self,
        client: &mut ContentClient<Calls>,
        blob: &Blob,
        source: &Arc<parking_lot::Mutex<Box<dyn Source>>>,
    ) -> Result<()> {
        let digest = &blob.descriptor.digest;
        match client.info(InfoRequest { digest: digest.clone() }).await {
            Ok(_) => return Ok(()),
            Err(status) if status.code() == Code::NotFound => {}
            Err(status) => return Err(RpcError::from_status(&status)),
        }
        let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
        let stop = CancellationToken::new();
        let _stop_reading = stop.clone().drop_guard();
        let reading = send_blob(blob.clone(), Arc::clone(source), sender, stop);
        let requests = futures::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|request| (request, receiver))
        });
        let writing = async {
            let mut answers = client.write(requests).await?.into_inner();
            while answers.message().await?.is_some() {}
            Ok::<(), Status>(())
        };
        let (read, written) = tokio::join!(reading, writing);
        match written {
            Ok(()) => read,
            // Somebody else wrote the same blob meanwhile.
            Err(status) if status.code() == Code::AlreadyExists => Ok(()),
            Err(status) => {
                let error = RpcError::from_status(&status);
                Err(error.while_doing(format_args!("write blob {digest}")))
            }
        }
    }

    /// Gives the image a name, replacing what had it.
    async fn name(&self, name: &str, image: &ArchivedImage) -> Result<()> {
        let labels = [MANAGED_LABEL, PINNED_LABEL].into_iter().filter(|(key, _)| {
            // Only our own sandbox image is pinned.
            *key != PINNED_LABEL.0 || image.names.iter().any(|n| n == super::PAUSE_IMAGE)
        });
        let record = Image {
            name: name.to_owned(),
            labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            target: Some(types::Descriptor {
                media_type: image.target.media_type.clone(),
                digest: image.target.digest.clone(),
                size: i64::try_from(image.target.size).unwrap_or(i64::MAX),
                annotations: HashMap::new(),
            }),
            ..Default::default()
        };
        let mut images = ImagesClient::new(self.calls(None));
        let create = CreateImageRequest { image: Some(record.clone()), source_date_epoch: None };
        match images.create(create).await {
            Ok(_) => return Ok(()),
            Err(status) if status.code() == Code::AlreadyExists => {}
            Err(status) => return Err(RpcError::from_status(&status)),
        }
        let update = UpdateImageRequest { image: Some(record), update_mask: None, source_date_epoch: None };
        images.update(update).await.map(drop).map_err(|status| RpcError::from_status(&status))
    }

    /// CRI takes new images up from containerd's events.
    async fn wait_until_known(&self, name: &str, id: &str) -> Result<()> {
        let spec = v1::ImageSpec { image: name.to_owned(), ..Default::default() };
        let known = async {
            loop {
                let image = self.runtime.image_status(&spec, false).await?.image;
                if image.is_some_and(|image| image.id == id) {
                    return Ok(());
                }
                tokio::time::sleep(NOTICE_INTERVAL).await;
            }
        };
        let late = |_| Error::retry(format!("CRI does not show {name} {NOTICE_DEADLINE:?} after its import"));
        tokio::time::timeout(NOTICE_DEADLINE, known).await.map_err(late)?
    }
}

/// Reads a blob on a thread of its own and sends it as write requests, the commit last.
async fn send_blob(
    blob: Blob,
    source: Arc<parking_lot::Mutex<Box<dyn Source>>>,
    sender: mpsc::Sender<WriteContentRequest>,
    stop: CancellationToken,
) -> Result<()> {
    let reading = tokio::task::spawn_blocking(move || {
        let name = unique("gantry-import");
        let total = i64::try_from(blob.descriptor.size).unwrap_or(i64::MAX);
        let mut offset = 0;
        let mut request = |action: WriteAction, data: Bytes| {
            let length = i64::try_from(data.len()).unwrap_or(i64::MAX);
            let labels = match action {
                WriteAction::Commit => blob.labels.clone().into_iter().collect(),
                _ => HashMap::new(),
            };
            let request = WriteContentRequest {
                action: action.into(),
                r#ref: name.clone(),
                total,
                expected: blob.descriptor.digest.clone(),
                offset,
                data,
                labels,
            };
            offset += length;
            request
        };
        // A receiver that is gone has an error of its own to tell.
        let send = |request| stop.is_cancelled() || sender.blocking_send(request).is_err();
        match &blob.content {
            Content::Memory(bytes) => {
                let mut rest = bytes.clone();
                while !rest.is_empty() {
                    let chunk = rest.split_to(rest.len().min(CHUNK_BYTES));
                    if send(request(WriteAction::Write, chunk)) {
                        return Ok(());
                    }
                }
            }
            Content::Archive(span) => {
                let mut done = 0;
                while done < span.size {
                    let length = (span.size - done).min(CHUNK_BYTES as u64);
                    let chunk = read_chunk(&source, span.offset + done, length)?;
                    done += length;
                    if send(request(WriteAction::Write, chunk)) {
                        return Ok(());
                    }
                }
            }
        }
        send(request(WriteAction::Commit, Bytes::new()));
        Ok(())
    });
    reading.await.context(Class::Bug, "read a blob")?
}

fn read_chunk(source: &parking_lot::Mutex<Box<dyn Source>>, offset: u64, length: u64) -> Result<Bytes> {
    let mut source = source.lock();
    let mut chunk = vec![0; usize::try_from(length).unwrap_or(CHUNK_BYTES)];
    source
        .seek(SeekFrom::Start(offset))
        .and_then(|_| source.read_exact(&mut chunk))
        .context(Class::Invalid, "the archive is cut short")?;
    Ok(chunk.into())
}

/// A name that nobody else uses, not even a process that died.
fn unique(prefix: &str) -> String {
    use std::hash::{BuildHasher, Hasher};
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    format!("{prefix}-{random:016x}")
}
