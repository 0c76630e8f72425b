//! Makes sure that the folder of the UI exists, so that the binary builds before the UI does, and is built again after.

fn main() -> std::io::Result<()> {
    let dist = std::path::Path::new("ui/dist");
    std::fs::create_dir_all(dist)?;
    println!("cargo:rerun-if-changed={}", dist.display());
    println!("cargo:rerun-if-changed=build.rs");
    Ok(())
}
