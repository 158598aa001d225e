//! Snapshots: files that hold the state, and on their way to another node the history too.
//!
//! ```text
//! file    = "QRTSNAP1" | format: u32 LE | frame(section)…        (frames: see codec)
//! section = Head | State… | History… | End
//! ```
//!
//! A file is written under another name, synced and then renamed, so one that has its name is
//! whole or was damaged later; every frame has its checksum, and the last tells how many there
//! were. The last two are kept, and the log behind the older: if the newer is damaged, the
//! older and the log make the same state.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_model::{LogIndex, State, mutant};
use serde::{Deserialize, Serialize};

use crate::codec;
use crate::history::Record;
use crate::storage::never_again;
use crate::types::{LeaderId, LogId, MemberNode, Membership, SnapshotMeta, StoredMembership};
use crate::wal::disk::{Directory, Disk, DiskFile};

#[cfg(test)]
mod crash;

const MAGIC: [u8; 8] = *b"QRTSNAP1";

/// The version of everything in a snapshot. An older one must stay readable for ever.
const FORMAT: u32 = 1;

/// Bytes in one section: small against memory, large against the cost of a frame.
const SECTION_BYTES: usize = 1024 * 1024;

/// Files kept: the newest, and one in case it is damaged.
const FILES_KEPT: usize = 2;

const SUFFIX: &str = "snapshot";
const PARTIAL: &str = "partial";

/// A piece of a snapshot, on disk and on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Section {
    /// First: what the snapshot covers.
    Head(Head),
    /// A piece of the encoded state.
    State(Vec<u8>),
    /// A piece of the encoded records of the history.
    History(Vec<u8>),
    /// Last: how many sections came before.
    End(u64),
}

/// What a snapshot covers, in a form of our own: the library's may change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    applied: Option<Place>,
    membership_at: Option<Place>,
    voters: Vec<BTreeSet<u64>>,
    nodes: BTreeMap<u64, MemberNode>,
    /// Whether the history is in it.
    has_history: bool,
}

/// A position in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    term: u64,
    leader: u64,
    index: u64,
}

impl Head {
    fn new(meta: &SnapshotMeta, has_history: bool) -> Self {
        let membership = meta.last_membership.membership();
        Self {
            applied: meta.last_log_id.map(Place::from),
            membership_at: meta.last_membership.log_id().map(Place::from),
            voters: membership.get_joint_config().clone(),
            nodes: membership.nodes().map(|(&id, node)| (id, node.clone())).collect(),
            has_history,
        }
    }

    fn meta(&self) -> io::Result<SnapshotMeta> {
        let membership = if self.voters.is_empty() {
            Membership::default()
        } else {
            Membership::new(self.voters.clone(), self.nodes.clone()).map_err(broken)?
        };
        let membership_at = self.membership_at.map(LogId::from);
        Ok(SnapshotMeta {
            last_log_id: self.applied.map(LogId::from),
            last_membership: StoredMembership::new(membership_at, membership),
        })
    }
}

impl From<LogId> for Place {
    fn from(id: LogId) -> Self {
        Self { term: id.leader_id.term, leader: id.leader_id.node_id, index: id.index }
    }
}

impl From<Place> for LogId {
    fn from(place: Place) -> Self {
        let leader_id = LeaderId { term: place.term, node_id: place.leader };
        Self { leader_id, index: place.index }
    }
}

/// The snapshots of a node.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotStore {
    disk: Arc<dyn Disk>,
}

/// A whole snapshot in a file.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotFile {
    name: String,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
}

impl SnapshotStore {
    /// Opens the directory, and clears away what was not finished.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        Self::open_on(Arc::new(Directory::open(dir)?))
    }

    fn open_on(disk: Arc<dyn Disk>) -> io::Result<Self> {
        for name in disk.list()? {
            if name.strip_suffix(PARTIAL).is_some_and(|stem| stem.ends_with('.')) {
                disk.delete(&name)?;
            }
        }
        // A name that could not be made durable before looks as if it were.
        disk.sync_directory()?;
        Ok(Self { disk })
    }

    /// Writes a snapshot of `state`; the history must be durable up to it. Blocks.
    pub(crate) fn write(&self, meta: &SnapshotMeta, state: &State) -> io::Result<SnapshotFile> {
        let mut incoming = self.begin("own")?;
        incoming.push(&Section::Head(Head::new(meta, false)))?;
        let mut pieces = Pieces::new(Section::State, |section| incoming.push(&section));
        codec::encode_into(state, &mut pieces)?;
        pieces.finish()?;
        let sections = incoming.sections;
        incoming.push(&Section::End(sections))?;
        let (_, file) = incoming.finish()?;
        Ok(file)
    }

    /// Begins to write a snapshot, here or as it comes from another node. `name` tells apart
    /// those that are being written at the same time.
    pub(crate) fn begin(&self, name: &str) -> io::Result<Incoming> {
        let name = format!("{name}.{PARTIAL}");
        match self.disk.delete(&name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let file = self.disk.create(&name)?;
        let sequence = Sequence { file: Arc::clone(&file), offset: 0, end: u64::MAX };
        let writer = BufWriter::with_capacity(SECTION_BYTES, sequence);
        let disk = Arc::clone(&self.disk);
        let mut incoming =
            Incoming { disk, name, file, writer, head: None, sections: 0, ended: false };
        incoming.writer.write_all(&MAGIC)?;
        incoming.writer.write_all(&FORMAT.to_le_bytes())?;
        Ok(incoming)
    }

    /// Every snapshot, newest first, by its index.
    pub(crate) fn list(&self) -> io::Result<Vec<(LogIndex, SnapshotFile)>> {
        let mut found = Vec::new();
        for name in self.disk.list()? {
            let Some((stem, SUFFIX)) = name.rsplit_once('.') else { continue };
            let Some(Ok(index)) = stem.split('-').next().map(str::parse) else { continue };
            let (path, file) = (self.disk.path(&name), self.disk.open(&name)?);
            found.push((LogIndex(index), SnapshotFile { name, path, file }));
        }
        found.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| b.1.name.cmp(&a.1.name)));
        Ok(found)
    }

    /// Removes all but the newest, and answers the index of the oldest that is left.
    pub(crate) fn retain(&self) -> io::Result<Option<LogIndex>> {
        let mut files = self.list()?;
        for (_, file) in files.drain(FILES_KEPT.min(files.len())..) {
            self.disk.delete(&file.name)?;
        }
        Ok(files.last().map(|&(index, _)| index).filter(|_| files.len() == FILES_KEPT))
    }

    /// Removes all but `kept`.
    pub(crate) fn retain_only(&self, kept: &SnapshotFile) -> io::Result<()> {
        for (_, file) in self.list()?.into_iter().filter(|(_, file)| file.name != kept.name) {
            self.disk.delete(&file.name)?;
        }
        Ok(())
    }
}

/// A snapshot that is being written. Removed unless it is finished.
#[derive(Debug)]
pub(crate) struct Incoming {
    disk: Arc<dyn Disk>,
    name: String,
    file: Arc<dyn DiskFile>,
    writer: BufWriter<Sequence>,
    head: Option<Head>,
    sections: u64,
    ended: bool,
}

impl Incoming {
    /// Adds a section. Blocks.
    pub(crate) fn push(&mut self, section: &Section) -> io::Result<()> {
        match section {
            Section::Head(head) if self.sections == 0 => self.head = Some(head.clone()),
            Section::State(_) | Section::History(_) if self.head.is_some() && !self.ended => {}
            &Section::End(sections) if sections == self.sections && !self.ended => {
                self.ended = true;
            }
            Section::Head(_) | Section::State(_) | Section::History(_) | Section::End(_) => {
                return Err(broken("a section of a snapshot is missing or out of place"));
            }
        }
        self.sections += 1;
        let mut frame = Vec::with_capacity(SECTION_BYTES + 64);
        codec::append_frame(&mut frame, section).map_err(io::Error::other)?;
        self.writer.write_all(&frame)
    }

    /// Makes it durable under its name.
    pub(crate) fn finish(mut self) -> io::Result<(SnapshotMeta, SnapshotFile)> {
        let head = self.head.take().filter(|_| self.ended);
        let head = head.ok_or_else(|| broken("a snapshot ended before its end"))?;
        self.writer.flush()?;
        if !mutant::is("M17") {
            never_again(self.file.sync())?;
        }
        let (term, index) = head.applied.map_or((0, 0), |place| (place.term, place.index));
        let name = format!("{index:020}-{term}.{SUFFIX}");
        self.disk.rename(&self.name, &name)?;
        never_again(self.disk.sync_directory())?;
        let (path, file) = (self.disk.path(&name), Arc::clone(&self.file));
        Ok((head.meta()?, SnapshotFile { name, path, file }))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // Finished ones have been renamed; of others, the next start removes what this cannot.
        let _ = self.disk.delete(&self.name);
    }
}

impl SnapshotFile {
    /// How many bytes it has.
    pub(crate) fn bytes(&self) -> io::Result<u64> {
        self.file.length()
    }

    /// Where it lies, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// A file, read or written from its beginning to its end.
#[derive(Debug)]
struct Sequence {
    file: Arc<dyn DiskFile>,
    offset: u64,
    end: u64,
}

impl Read for Sequence {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.offset).unwrap_or(usize::MAX);
        let read = left.min(into.len());
        self.file.read_at(self.offset, &mut into[..read])?;
        self.offset += read as u64;
        Ok(read)
    }
}

impl Write for Sequence {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_at(self.offset, bytes)?;
        self.offset += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a snapshot from its beginning to its end.
#[derive(Debug)]
pub(crate) struct SnapshotReader {
    file: BufReader<Sequence>,
    /// The size of the file.
    bytes: u64,
    head: Head,
    /// The section read last, and how much of it is used up.
    section: Section,
    used: usize,
    sections: u64,
}

impl SnapshotReader {
    pub(crate) fn open(snapshot: &SnapshotFile) -> io::Result<Self> {
        let (file, bytes) = (Arc::clone(&snapshot.file), snapshot.bytes()?);
        let sequence = Sequence { file, offset: 0, end: bytes };
        let mut file = BufReader::with_capacity(SECTION_BYTES, sequence);
        let mut magic = [0; MAGIC.len()];
        file.read_exact(&mut magic)?;
        let mut format = [0; 4];
        file.read_exact(&mut format)?;
        if magic != MAGIC {
            return Err(broken("it is not a snapshot"));
        }
        let format = u32::from_le_bytes(format);
        if format != FORMAT {
            return Err(broken(format!("it has format {format}: a newer version wrote it")));
        }
        let Section::Head(head) = read_section(&mut file)? else {
            return Err(broken("it has no head"));
        };
        let section = read_section(&mut file)?;
        Ok(Self { file, bytes, head, section, used: 0, sections: 2 })
    }

    pub(crate) fn meta(&self) -> io::Result<SnapshotMeta> {
        self.head.meta()
    }

    pub(crate) fn has_history(&self) -> bool {
        self.head.has_history
    }

    /// The state. First.
    pub(crate) fn state(&mut self) -> io::Result<State> {
        let bytes = self.bytes;
        let state = codec::decode_from(&mut Stream { reader: self, history: false }, bytes)?;
        while matches!(&self.section, Section::State(piece) if self.used == piece.len()) {
            self.advance()?;
        }
        Ok(state)
    }

    /// The next record of the history. After the state.
    pub(crate) fn next_record(&mut self) -> io::Result<Option<Record>> {
        let bytes = self.bytes;
        let mut stream = Stream { reader: self, history: true };
        if stream.fill_buf()?.is_empty() {
            return Ok(None);
        }
        codec::decode_from(&mut stream, bytes).map(Some)
    }

    /// Passes over the history, and checks that the end is where it should be. Last.
    pub(crate) fn end(mut self) -> io::Result<()> {
        while matches!(self.section, Section::History(_)) {
            self.advance()?;
        }
        match self.section {
            Section::End(sections) if sections + 1 == self.sections => Ok(()),
            Section::End(_) | Section::Head(_) | Section::State(_) | Section::History(_) => {
                Err(broken("it does not end where it should"))
            }
        }
    }

    fn advance(&mut self) -> io::Result<()> {
        self.section = read_section(&mut self.file)?;
        self.used = 0;
        self.sections += 1;
        Ok(())
    }
}

/// The bytes of all sections of one kind.
struct Stream<'a> {
    reader: &'a mut SnapshotReader,
    history: bool,
}

impl BufRead for Stream<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        loop {
            let spent = match (&self.reader.section, self.history) {
                (Section::State(piece), false) | (Section::History(piece), true) => {
                    self.reader.used >= piece.len()
                }
                (
                    Section::State(_) | Section::History(_) | Section::Head(_) | Section::End(_),
                    _,
                ) => {
                    return Ok(&[]);
                }
            };
            if !spent {
                break;
            }
            self.reader.advance()?;
        }
        match &self.reader.section {
            Section::State(piece) | Section::History(piece) => Ok(&piece[self.reader.used..]),
            Section::Head(_) | Section::End(_) => Ok(&[]),
        }
    }

    fn consume(&mut self, amount: usize) {
        self.reader.used += amount;
    }
}

impl Read for Stream<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(into)?;
        self.consume(read);
        Ok(read)
    }
}

/// Cuts bytes into sections.
struct Pieces<F> {
    wrap: fn(Vec<u8>) -> Section,
    give: F,
    piece: Vec<u8>,
}

impl<F: FnMut(Section) -> io::Result<()>> Pieces<F> {
    fn new(wrap: fn(Vec<u8>) -> Section, give: F) -> Self {
        Self { wrap, give, piece: Vec::with_capacity(SECTION_BYTES) }
    }

    fn finish(mut self) -> io::Result<()> {
        if self.piece.is_empty() { Ok(()) } else { (self.give)((self.wrap)(self.piece)) }
    }
}

impl<F: FnMut(Section) -> io::Result<()>> Write for Pieces<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(SECTION_BYTES - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() == SECTION_BYTES {
            let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(SECTION_BYTES));
            (self.give)((self.wrap)(piece))?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Gives every section of a snapshot for another node: the state from the file, the history
/// as it is now, which is at least as far. Blocks.
pub(crate) fn sections_for_peer(
    snapshot: &SnapshotFile,
    history: &crate::History,
    give: impl FnMut(Section) -> io::Result<()>,
) -> io::Result<()> {
    let mut given = 0;
    let mut reader = SnapshotReader::open(snapshot)?;
    let mut give = give;
    let mut count = |section| {
        given += 1;
        give(section)
    };
    count(Section::Head(Head { has_history: true, ..reader.head.clone() }))?;
    while matches!(reader.section, Section::State(_)) {
        count(reader.section.clone())?;
        reader.advance()?;
    }
    let mut pieces = Pieces::new(Section::History, count);
    let mut last = None;
    loop {
        let page = history.page(last, SECTION_BYTES).map_err(io::Error::other)?;
        let Some(record) = page.last() else { break };
        last = Some(record.id());
        page.iter().try_for_each(|record| codec::encode_into(record, &mut pieces))?;
    }
    pieces.finish()?;
    give(Section::End(given))
}

fn read_section(file: &mut impl Read) -> io::Result<Section> {
    let mut header = [0; 8];
    file.read_exact(&mut header)?;
    let [l0, l1, l2, l3, c0, c1, c2, c3] = header;
    let bytes = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if bytes > codec::FRAME_BYTES_MAX {
        return Err(broken("a section is too large"));
    }
    let mut payload = vec![0; bytes];
    file.read_exact(&mut payload)?;
    if crc32c::crc32c(&payload) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Err(broken("the checksum of a section differs"));
    }
    codec::decode(&payload).map_err(broken)
}

fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
