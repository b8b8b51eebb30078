//! A key in a file, which whoever rotates keys writes anew.

use super::error::{ApiError, ErrorKind};
use super::keys::KeySource;
use super::secret::ApiKey;
use secrecy::zeroize::Zeroize;
use std::fs::{File, Metadata};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// A key has some hundred characters, a signed token a few thousand.
const MOST: usize = 64 * 1024;

/// What changes when a file is written or replaced.
#[derive(Clone, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(metadata);
        #[cfg(not(unix))]
        let inode = 0;
        Stamp { modified: metadata.modified().ok(), length: metadata.len(), inode }
    }
}

/// Gives the key that is in a file: read when it is another file than before, or when its key was refused.
pub struct KeyFile {
    path: PathBuf,
    read: Mutex<Option<(Stamp, ApiKey)>>,
}

impl KeyFile {
    /// Of that file. One that cannot be read, or holds no key, is a configuration error.
    pub fn open(path: PathBuf) -> Result<KeyFile, ApiError> {
        let file = KeyFile { path, read: Mutex::new(None) };
        file.key(false).map_err(|error| ApiError::new(ErrorKind::Configuration, error.message.clone()))?;
        Ok(file)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn wrong(&self, what: &str) -> ApiError {
        ApiError::new(ErrorKind::Authentication, format!("the api_key file {} {what}", self.path.display()))
    }

    fn read(&self) -> Result<(Stamp, ApiKey), ApiError> {
        let unreadable = |error: std::io::Error| self.wrong(&format!("cannot be read: {error}"));
        let file = File::open(&self.path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if metadata.is_dir() {
            return Err(self.wrong("is a directory"));
        }
        // Wiped whole: it never grows, so that it leaves no copies behind.
        let mut bytes = vec![0; MOST + 1];
        let mut length = 0;
        let mut rest = file.take(bytes.len() as u64);
        loop {
            match rest.read(&mut bytes[length..]) {
                Ok(0) => break,
                Ok(more) => length += more,
                Err(error) => {
                    bytes.zeroize();
                    return Err(unreadable(error));
                }
            }
        }
        let key = if length > MOST {
            Err(self.wrong("is longer than 64 KB, which no key is"))
        } else {
            match std::str::from_utf8(&bytes[..length]).map(str::trim) {
                Ok("") => Err(self.wrong("is empty")),
                Ok(text) => {
                    ApiKey::new(text.to_owned()).map_err(|error| self.wrong(&format!("holds no key that can be sent: {}", error.message)))
                }
                Err(_) => Err(self.wrong("is no text in UTF-8")),
            }
        };
        bytes.zeroize();
        Ok((Stamp::of(&metadata), key?))
    }
}

impl KeySource for KeyFile {
    fn key(&self, refused: bool) -> Result<ApiKey, ApiError> {
        let known = self.read.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let is_same = |known: &Stamp| std::fs::metadata(&self.path).is_ok_and(|metadata| Stamp::of(&metadata) == *known);
        if let Some((stamp, key)) = &known
            && !refused
            && is_same(stamp)
        {
            return Ok(key.clone());
        }
        match (self.read(), known) {
            (Ok((stamp, key)), _) => {
                *self.read.lock().unwrap_or_else(PoisonError::into_inner) = Some((stamp, key.clone()));
                Ok(key)
            }
            // It is being written just now, or away for a moment: the key from before may still serve.
            (Err(_), Some((_, key))) => Ok(key),
            (Err(error), None) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("seawall-key-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        directory.join("key")
    }

    #[test]
    fn it_is_read_again_when_it_is_another_and_when_its_key_was_refused() {
        let path = scratch("again");
        std::fs::write(&path, "sk-first-of-all\n").unwrap();
        let file = KeyFile::open(path.clone()).unwrap();
        assert_eq!(file.key(false).unwrap().expose(), "sk-first-of-all");
        // Of the same length, and dated back: nothing tells it from the one before but what is in it.
        let dated = std::fs::metadata(&path).unwrap().modified().unwrap();
        std::fs::write(&path, "sk-other-of-all\n").unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(dated).unwrap();
        assert_eq!(file.key(false).unwrap().expose(), "sk-first-of-all");
        assert_eq!(file.key(true).unwrap().expose(), "sk-other-of-all");
        std::fs::write(&path, "sk-third-and-longer").unwrap();
        assert_eq!(file.key(false).unwrap().expose(), "sk-third-and-longer");
        // In the middle of being written, or away for a moment.
        std::fs::write(&path, "").unwrap();
        assert_eq!(file.key(false).unwrap().expose(), "sk-third-and-longer");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(file.key(true).unwrap().expose(), "sk-third-and-longer");
        std::fs::write(&path, "sk-after-all").unwrap();
        assert_eq!(file.key(false).unwrap().expose(), "sk-after-all");
        std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }

    #[test]
    fn one_without_a_key_is_refused_with_its_path_and_nothing_of_what_is_in_it() {
        let path = scratch("refused");
        for (content, what) in [
            (Vec::new(), "is empty"),
            (b" \n".to_vec(), "is empty"),
            (b"sk-one\nsk-two".to_vec(), "position 6"),
            (b"sk-\xff".to_vec(), "UTF-8"),
            (vec![b'x'; MOST + 1], "longer than"),
        ] {
            std::fs::write(&path, content).unwrap();
            let error = KeyFile::open(path.clone()).err().unwrap();
            assert_eq!(error.kind, ErrorKind::Configuration);
            assert!(error.message.contains(what) && error.message.contains(&*path.to_string_lossy()), "{error}");
            assert!(!error.message.contains("sk-"), "{error}");
        }
        let missing = KeyFile::open(path.with_file_name("none")).err().unwrap();
        assert!(missing.message.contains("cannot be read"), "{missing}");
        let directory = KeyFile::open(path.parent().unwrap().to_owned()).err().unwrap();
        assert!(directory.message.contains("directory"), "{directory}");
        std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }
}
