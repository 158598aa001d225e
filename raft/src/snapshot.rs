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
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use quorate_model::{LogIndex, State};
use serde::{Deserialize, Serialize};

use crate::codec;
use crate::history::Record;
use crate::types::{LeaderId, LogId, MemberNode, Membership, SnapshotMeta, StoredMembership};

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
    dir: PathBuf,
}

/// A whole snapshot in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SnapshotFile {
    path: PathBuf,
}

impl SnapshotStore {
    /// Opens the directory, and clears away what was not finished.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == PARTIAL) {
                std::fs::remove_file(path)?;
            }
        }
        Ok(Self { dir: dir.to_owned() })
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
        let path = self.dir.join(format!("{name}.{PARTIAL}"));
        let mut file = BufWriter::with_capacity(SECTION_BYTES, File::create(&path)?);
        file.write_all(&MAGIC)?;
        file.write_all(&FORMAT.to_le_bytes())?;
        let dir = self.dir.clone();
        Ok(Incoming { dir, path, file, head: None, sections: 0, ended: false })
    }

    /// Every snapshot, newest first, by its index.
    pub(crate) fn list(&self) -> io::Result<Vec<(LogIndex, SnapshotFile)>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let index = name.split('-').next().and_then(|index| index.parse().ok());
            let Some(index) = index else { continue };
            if path.extension().is_some_and(|extension| extension == SUFFIX) {
                found.push((LogIndex(index), SnapshotFile { path }));
            }
        }
        found.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| b.1.path.cmp(&a.1.path)));
        Ok(found)
    }

    /// Removes all but the newest, and answers the index of the oldest that is left.
    pub(crate) fn retain(&self) -> io::Result<Option<LogIndex>> {
        let mut files = self.list()?;
        for (_, file) in files.drain(FILES_KEPT.min(files.len())..) {
            std::fs::remove_file(file.path)?;
        }
        Ok(files.last().map(|&(index, _)| index).filter(|_| files.len() == FILES_KEPT))
    }

    /// Removes all but `kept`.
    pub(crate) fn retain_only(&self, kept: &SnapshotFile) -> io::Result<()> {
        for (_, file) in self.list()?.into_iter().filter(|(_, file)| file != kept) {
            std::fs::remove_file(file.path)?;
        }
        Ok(())
    }
}

/// A snapshot that is being written. Removed unless it is finished.
#[derive(Debug)]
pub(crate) struct Incoming {
    dir: PathBuf,
    path: PathBuf,
    file: BufWriter<File>,
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
        self.file.write_all(&frame)
    }

    /// Makes it durable under its name.
    pub(crate) fn finish(mut self) -> io::Result<(SnapshotMeta, SnapshotFile)> {
        let head = self.head.take().filter(|_| self.ended);
        let head = head.ok_or_else(|| broken("a snapshot ended before its end"))?;
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        let (term, index) = head.applied.map_or((0, 0), |place| (place.term, place.index));
        let path = self.dir.join(format!("{index:020}-{term}.{SUFFIX}"));
        std::fs::rename(&self.path, &path)?;
        File::open(&self.dir)?.sync_all()?;
        Ok((head.meta()?, SnapshotFile { path }))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // Finished ones have been renamed; of others, the next start removes what this cannot.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl SnapshotFile {
    /// How many bytes it has.
    pub(crate) fn bytes(&self) -> io::Result<u64> {
        Ok(std::fs::metadata(&self.path)?.len())
    }

    /// Where it lies, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Reads a snapshot from its beginning to its end.
#[derive(Debug)]
pub(crate) struct SnapshotReader {
    file: BufReader<File>,
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
        let file = File::open(&snapshot.path)?;
        let bytes = file.metadata()?.len();
        let mut file = BufReader::with_capacity(SECTION_BYTES, file);
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
