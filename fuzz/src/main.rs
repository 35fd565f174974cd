//! libFuzzer around one target, which `GANTRY_FUZZ_TARGET` names. `cargo xtask fuzz` builds and runs it.

#![no_main]

use std::path::Path;
use std::sync::{Once, OnceLock};

use gantry_fuzz::{Target, seeds};

static TARGET: OnceLock<&Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        let name = variable("GANTRY_FUZZ_TARGET");
        let target = gantry_fuzz::find(&name).unwrap_or_else(|| panic!("there is no target {name:?}"));
        prepare(target, Path::new(&variable("GANTRY_FUZZ_DIR"))).expect("the first inputs can be written");
        TARGET.get_or_init(|| target);
    },
    |data: &[u8]| {
        // The engine sets its handlers after `init`.
        static CAUGHT: Once = Once::new();
        CAUGHT.call_once(catch_overflows);
        if let Some(target) = TARGET.get() {
            (target.run)(data);
        }
    }
);

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `cargo xtask fuzz`"))
}

/// Writes the first inputs and the dictionary, before the engine reads them.
fn prepare(target: &Target, dir: &Path) -> std::io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let (inputs, dictionary) = seeds::of(target, root);
    let place = dir.join("seeds");
    std::fs::create_dir_all(&place)?;
    for (number, input) in inputs.iter().enumerate() {
        std::fs::write(place.join(number.to_string()), input)?;
    }
    std::fs::write(dir.join("words.dict"), dictionary)
}

/// Gives the engine's handler of SIGSEGV a stack of its own, on which it can write down an input whose nesting used up
/// the ordinary one.
fn catch_overflows() {
    const SIZE: usize = 256 << 10;
    let memory = Box::leak(vec![0_u8; SIZE].into_boxed_slice());
    let stack = libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: SIZE };
    // SAFETY: the memory is leaked, so it is there as long as the handler; the handlers were set by the engine before,
    // and only get one flag more.
    unsafe {
        assert_eq!(libc::sigaltstack(&raw const stack, std::ptr::null_mut()), 0, "a stack for signals");
        for signal in [libc::SIGSEGV, libc::SIGBUS] {
            let mut action: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signal, std::ptr::null(), &raw mut action);
            action.sa_flags |= libc::SA_ONSTACK;
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}
