//! What this version offers to guests, by the names of imports, and what exports can be started.

use super::{Entry, Item, Kind, Need, Preview};

/// The functions of preview 1, all of which are linked.
const PREVIEW1: &[&str] = &[
    "args_get",
    "args_sizes_get",
    "environ_get",
    "environ_sizes_get",
    "clock_res_get",
    "clock_time_get",
    "fd_advise",
    "fd_allocate",
    "fd_close",
    "fd_datasync",
    "fd_fdstat_get",
    "fd_fdstat_set_flags",
    "fd_fdstat_set_rights",
    "fd_filestat_get",
    "fd_filestat_set_size",
    "fd_filestat_set_times",
    "fd_pread",
    "fd_prestat_get",
    "fd_prestat_dir_name",
    "fd_pwrite",
    "fd_read",
    "fd_readdir",
    "fd_renumber",
    "fd_seek",
    "fd_sync",
    "fd_tell",
    "fd_write",
    "path_create_directory",
    "path_filestat_get",
    "path_filestat_set_times",
    "path_link",
    "path_open",
    "path_readlink",
    "path_remove_directory",
    "path_rename",
    "path_symlink",
    "path_unlink_file",
    "poll_oneoff",
    "proc_exit",
    "proc_raise",
    "sched_yield",
    "random_get",
    "sock_accept",
    "sock_recv",
    "sock_send",
    "sock_shutdown",
];
const PREVIEW1_MODULE: &str = "wasi_snapshot_preview1";

/// Packages of which every interface of 0.2 and 0.3 is linked.
const PACKAGES: &[&str] = &[
    "wasi:cli",
    "wasi:clocks",
    "wasi:filesystem",
    "wasi:io",
    "wasi:random",
    "wasi:sockets",
];

/// Release candidates that are linked. Each is an interface of its own: no other version fits it.
const CANDIDATES: &[&str] = &["wasi:config/store@0.2.0-rc.1"];

pub(super) fn offers(kind: Kind, item: &Item) -> bool {
    match kind {
        Kind::Module => item
            .name
            .strip_prefix(PREVIEW1_MODULE)
            .and_then(|rest| rest.strip_prefix('/'))
            .is_some_and(|name| PREVIEW1.contains(&name)),
        // A type may be imported by itself: it asks for nothing.
        Kind::Component => {
            item.ty.starts_with("type")
                || CANDIDATES.contains(&item.name.as_str())
                || wasi(&item.name).is_some_and(|(package, ..)| PACKAGES.contains(&package))
        }
    }
}

/// Package, interface and preview of a name such as `wasi:cli/run@0.2.6`; release candidates are another interface.
fn wasi(name: &str) -> Option<(&str, &str, Preview)> {
    let (path, version) = name.split_once('@')?;
    let (package, interface) = path.split_once('/')?;
    if version.contains('-') {
        return None;
    }
    let preview = match version.rsplit_once('.')?.0 {
        "0.2" => Preview::P2,
        "0.3" => Preview::P3,
        _ => return None,
    };
    Some((package, interface, preview))
}

/// HTTP first: toolchains add a `run` to what is a server.
pub(super) fn entry(kind: Kind, exports: &[Item]) -> Option<Entry> {
    if kind == Kind::Module {
        return exports
            .iter()
            .any(|item| item.name == "_start" && item.ty == "func()")
            .then_some(Entry::Start);
    }
    let exported = |package, interface, preview| {
        exports
            .iter()
            .any(|item| wasi(&item.name) == Some((package, interface, preview)))
    };
    [
        (Entry::HttpP2, "wasi:http", "incoming-handler", Preview::P2),
        (Entry::HttpP3, "wasi:http", "handler", Preview::P3),
        (Entry::CliP3, "wasi:cli", "run", Preview::P3),
        (Entry::CliP2, "wasi:cli", "run", Preview::P2),
    ]
    .into_iter()
    .find(|(_, package, interface, preview)| exported(package, interface, *preview))
    .map(|(entry, ..)| entry)
    .or_else(|| {
        exports
            .iter()
            .any(|item| item.name == "run" && is_plain(&item.ty))
            .then_some(Entry::BareRun)
    })
}

fn is_plain(ty: &str) -> bool {
    ty.strip_prefix("async ")
        .unwrap_or(ty)
        .starts_with("func()")
}

pub(super) fn previews(imports: &[Item], exports: &[Item]) -> Vec<Preview> {
    let of = |item: &Item| {
        if item.name.starts_with(PREVIEW1_MODULE) {
            Some(Preview::P1)
        } else {
            wasi(&item.name).map(|(.., preview)| preview)
        }
    };
    let mut found: Vec<Preview> = imports.iter().chain(exports).filter_map(of).collect();
    found.sort_unstable();
    found.dedup();
    found
}

pub(super) fn needs(kind: Kind, name: &str) -> &'static [Need] {
    if kind == Kind::Module {
        return preview1_needs(name.rsplit('/').next().unwrap_or(name));
    }
    let path = name.split('@').next().unwrap_or(name);
    match path {
        "wasi:cli/environment" => &[Need::Args, Need::Env],
        "wasi:sockets/ip-name-lookup" => &[Need::NameLookup],
        _ if path.starts_with("wasi:clocks/") => &[Need::Clocks],
        _ if path.starts_with("wasi:random/") => &[Need::Random],
        _ if path.starts_with("wasi:filesystem/") => &[Need::Filesystem],
        _ if path.starts_with("wasi:sockets/") => &[Need::Sockets],
        _ if path.starts_with("wasi:http/") => &[Need::Http],
        _ if path.starts_with("wasi:config/") => &[Need::Config],
        _ => &[],
    }
}

fn preview1_needs(name: &str) -> &'static [Need] {
    match name {
        "args_get" => &[Need::Args],
        "environ_get" => &[Need::Env],
        "clock_time_get" => &[Need::Clocks],
        "random_get" => &[Need::Random],
        _ if name.starts_with("path_") => &[Need::Filesystem],
        _ if name.starts_with("sock_") => &[Need::Sockets],
        _ => &[],
    }
}
