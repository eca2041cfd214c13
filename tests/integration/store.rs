//! The store (docs/operations.md) as the command line sees it.

use crate::support::program::{Folder, Output};

#[test]
fn without_a_store_the_commands_say_so() {
    let folder = Folder::new();
    for command in ["export", "audit"] {
        let Output { status, stdout, stderr } = folder.tinychat(&[command, "--database-path", "OFF"]).run();
        assert_eq!((status, stdout), (Some(1), String::new()));
        let expected = format!("tinychat {command}: nothing is stored, because DATABASE_PATH is off\n");
        assert_eq!(stderr, expected);
        let Output { status, stderr, .. } = folder.tinychat(&[command]).run();
        assert_eq!(status, Some(1));
        assert!(stderr.contains("There is no store at ") && stderr.contains("tinychat.db; "), "{stderr}");
    }
    let off = folder.tinychat(&["check", "--database-path", "off"]).run();
    assert!(off.status == Some(0) && off.stdout.contains("\nstore: off (DATABASE_PATH=off)"), "{off:?}");
    let new = folder.tinychat(&["check"]).run();
    let expected = "\nstore: ./tinychat.db (does not exist yet)\n";
    assert!(new.status == Some(0) && new.stdout.contains(expected), "{new:?}");
    assert!(folder.files(".").is_empty(), "a command has created a file");
}

#[test]
fn check_fails_if_the_server_could_not_use_the_store() {
    let folder = Folder::new();
    folder.write(
        "notes.txt",
        "not a database, and long enough to have the header of one, which has 100 bytes in all",
    );
    folder.write("folder/file", "");
    for (path, reason) in [
        ("notes.txt", "is not a SQLite database; "),
        ("folder", "is not a file; "),
        ("nowhere/tinychat.db", "its folder does not exist; "),
    ] {
        let Output { status, stdout, .. } = folder.tinychat(&["check", "--database-path", path]).run();
        assert_eq!(status, Some(1), "{stdout}");
        assert!(
            stdout.contains("error: The store ") && stdout.contains(path) && stdout.contains(reason),
            "{stdout}"
        );
    }
}

#[test]
fn a_folder_that_is_not_writable_is_an_error_only_for_a_path_that_was_set() {
    let folder = Folder::new();
    folder.write("read-only/tinychat.db", "");
    folder.set_mode("read-only/tinychat.db", 0o444);
    let program = |arguments: &[&str]| {
        let program = folder.tinychat_as_nobody(arguments);
        // Run with a folder of its own as the working directory, which `nobody` cannot write.
        folder.set_mode(".", 0o555);
        let output = program.run();
        folder.set_mode(".", 0o755);
        output
    };
    let default = program(&["check"]);
    assert_eq!(default.status, Some(0), "{default:?}");
    assert!(default.stdout.contains("its folder is not writable"), "{default:?}");
    assert!(default.stdout.contains("warning: the server would run without a store"), "{default:?}");
    let explicit = program(&["check", "--database-path", "./tinychat.db"]);
    assert_eq!(explicit.status, Some(1), "{explicit:?}");
    assert!(
        explicit.stdout.contains("error: The store ")
            && explicit.stdout.contains("its folder is not writable")
    );
    let read_only = program(&["check", "--database-path", "read-only/tinychat.db"]);
    assert_eq!(read_only.status, Some(1), "{read_only:?}");
}
