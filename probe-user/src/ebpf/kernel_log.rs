//! Log lines of the kernel programs, in the log of the probe.

/// Passes lines on. Whoever asked for them wants to see them, so all are of the level that is written unless somebody says otherwise.
#[derive(Clone, Copy, Debug)]
pub(super) struct KernelLog;

impl log::Log for KernelLog {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        tracing::info!(target: "kernel", program = record.target(), "{}", record.args());
    }

    fn flush(&self) {}
}
