//! The PHP builds that memprof is tested against, by name.

use std::fmt;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::target_dir;

/// One real php-fpm, kept unpacked below `target/php`, never installed.
///
/// One minor version has several layouts: the security releases of October 2026 moved the heap's and the chunk's fields
/// inside 8.2 and 8.4. So each of these two is here from before and from after.
#[derive(Debug)]
pub struct PhpBuild {
    /// The folder's name below `target/php`, as `bookworm-8.2`.
    pub name: &'static str,
    /// What PHP_VERSION is, or begins with where the source moves with its distribution.
    pub version: &'static str,
    /// Where it is fetched from.
    pub source: Source,
}

/// Where a build comes from.
#[derive(Debug)]
pub enum Source {
    /// Debian packages with all they depend on, unpacked into a root of their own and run by `chroot`.
    Debian {
        /// Suites as they stand in a sources list, as `bookworm-security`.
        suites: &'static [&'static str],
        /// Debian's name of the architecture, as `arm64`, where it is not x86-64.
        architecture: Option<&'static str>,
        /// The packages asked for.
        packages: &'static [&'static str],
    },
    /// Only the binary in one Debian package for another architecture: it is decoded, never run.
    DebianBinary {
        /// Suites as they stand in a sources list, as `bookworm-security`.
        suites: &'static [&'static str],
        /// Debian's name of the architecture, as `arm64`.
        architecture: &'static str,
        /// The package.
        package: &'static str,
    },
    /// A package of the npm registry that carries php-fpm and the libraries it needs; it runs without a root of its own.
    Npm {
        /// Name and version, as `npm pack` takes them.
        package: &'static str,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Debian {
                suites,
                architecture,
                packages,
            } => {
                write!(formatter, "Debian {}", suites.join(" "))?;
                if let Some(architecture) = architecture {
                    write!(formatter, " {architecture}")?;
                }
                write!(formatter, ": {}", packages.join(" "))
            }
            Source::DebianBinary {
                suites,
                architecture,
                package,
            } => {
                write!(
                    formatter,
                    "Debian {} {architecture}: the binary of {package}",
                    suites.join(" ")
                )
            }
            Source::Npm { package } => write!(formatter, "npm: {package}"),
        }
    }
}

/// Laravel's framework, and the PHP 8.2 that it runs on.
const LARAVEL_PACKAGES: &[&str] = &[
    "php8.2-fpm",
    "php8.2-opcache",
    "php8.2-curl",
    "php8.2-gd",
    "php8.2-intl",
    "php8.2-mbstring",
    "php8.2-sqlite3",
    "php8.2-xml",
    "php8.2-zip",
    "php-laravel-framework",
];

/// Debian's php-fpm with all it depends on, for x86-64 where no architecture is named.
const fn debian(
    name: &'static str,
    version: &'static str,
    suites: &'static [&'static str],
    architecture: Option<&'static str>,
    packages: &'static [&'static str],
) -> PhpBuild {
    PhpBuild {
        name,
        version,
        source: Source::Debian {
            suites,
            architecture,
            packages,
        },
    }
}

/// A build from the npm registry, for x86-64.
const fn npm(name: &'static str, version: &'static str, package: &'static str) -> PhpBuild {
    PhpBuild {
        name,
        version,
        source: Source::Npm { package },
    }
}

/// Debian's php-fpm for arm64, to be decoded.
const fn arm64(
    name: &'static str,
    version: &'static str,
    suites: &'static [&'static str],
    package: &'static str,
) -> PhpBuild {
    PhpBuild {
        name,
        version,
        source: Source::DebianBinary {
            suites,
            architecture: "arm64",
            package,
        },
    }
}

impl PhpBuild {
    /// Every build that is run on a processor such as this one, oldest PHP first.
    pub const ALL: &'static [PhpBuild] = if cfg!(target_arch = "aarch64") {
        Self::ARM64
    } else {
        Self::X86_64
    };

    /// Every build for x86-64, oldest PHP first.
    pub const X86_64: &'static [PhpBuild] = &[
        debian(
            "bullseye-7.4",
            "7.4",
            &["bullseye"],
            None,
            &["php7.4-fpm", "php7.4-opcache"],
        ),
        npm("npm-8.2.20", "8.2.20", "@libphp/amazon-linux-2-v82@0.0.14"),
        debian(
            "bookworm-8.2",
            "8.2",
            &["bookworm", "bookworm-security"],
            None,
            LARAVEL_PACKAGES,
        ),
        npm("npm-8.3.8", "8.3.8", "@libphp/amazon-linux-2-v83@0.0.14"),
        npm(
            "npm-8.4.14",
            "8.4.14",
            "@libphp/amazon-linux-2023-v84@0.0.8",
        ),
        debian(
            "trixie-8.4",
            "8.4",
            &["trixie", "trixie-security"],
            None,
            &["php8.4-fpm", "php8.4-opcache"],
        ),
        npm("npm-8.5.2", "8.5.2", "@libphp/almalinux-9-v85@0.0.3"),
    ];

    /// Every build for arm64 that is run, oldest PHP first. They are decoded too, as [`PhpBuild::DECODED`] are.
    pub const ARM64: &'static [PhpBuild] = &[
        debian(
            "arm64-bookworm-security-8.2",
            "8.2",
            &["bookworm", "bookworm-security"],
            Some("arm64"),
            LARAVEL_PACKAGES,
        ),
        debian(
            "arm64-trixie-security-8.4",
            "8.4",
            &["trixie", "trixie-security"],
            Some("arm64"),
            &["php8.4-fpm", "php8.4-opcache"],
        ),
    ];

    /// Builds for arm64 that are decoded on any machine and run on none: of two of these versions
    /// [`PhpBuild::ARM64`] has the release of October 2026, these are from before.
    pub const DECODED: &'static [PhpBuild] = &[
        arm64("arm64-bullseye-7.4", "7.4", &["bullseye"], "php7.4-fpm"),
        arm64("arm64-bookworm-8.2", "8.2", &["bookworm"], "php8.2-fpm"),
        arm64("arm64-trixie-8.4", "8.4", &["trixie"], "php8.4-fpm"),
    ];

    /// Builds that are only decoded, of suites that move on: fetched by name alone, because what they
    /// hold tomorrow is not known today.
    pub const MOVING: &'static [PhpBuild] = &[
        arm64("arm64-sid-8.4", "8.4", &["sid"], "php8.4-fpm"),
        arm64(
            "arm64-experimental-8.5",
            "8.5",
            &["sid", "experimental"],
            "php8.5-fpm",
        ),
        arm64(
            "arm64-experimental-8.6",
            "8.6",
            &["sid", "experimental"],
            "php8.6-fpm",
        ),
    ];

    /// What `cargo xtask bench` runs: Laravel, MediaWiki, Symfony with Doctrine, and the profilers that memprof is held
    /// against, none of them enabled.
    pub const BENCHED: &'static PhpBuild = &debian(
        "bench-8.2",
        "8.2",
        &["bookworm", "bookworm-security"],
        None,
        &[
            "php8.2-fpm",
            "php8.2-opcache",
            "php8.2-curl",
            "php8.2-gd",
            "php8.2-intl",
            "php8.2-mbstring",
            "php8.2-sqlite3",
            "php8.2-xml",
            "php8.2-zip",
            "php-laravel-framework",
            "mediawiki",
            "php-symfony-framework-bundle",
            "php-doctrine-orm",
            "php8.2-xdebug",
            "php-excimer",
        ],
    );

    /// The build that carries Laravel.
    pub const LARAVEL: &'static str = if cfg!(target_arch = "aarch64") {
        "arm64-bookworm-security-8.2"
    } else {
        "bookworm-8.2"
    };

    /// What `cargo xtask php` fetches when it is asked for nothing: all but [`PhpBuild::MOVING`].
    pub fn usual() -> impl Iterator<Item = &'static PhpBuild> {
        Self::X86_64.iter().chain(Self::ARM64).chain(Self::DECODED)
    }

    /// Finds a build by its name.
    ///
    /// # Errors
    /// When no build has that name; the error lists those that there are.
    pub fn named(name: &str) -> Result<&'static PhpBuild> {
        let builds = || {
            let by_name_alone = Self::MOVING.iter().chain([Self::BENCHED]);
            Self::usual().chain(by_name_alone)
        };
        let names = || {
            builds()
                .map(|build| build.name)
                .collect::<Vec<_>>()
                .join(", ")
        };
        let found = builds().find(|build| build.name == name);
        found.with_context(|| format!("no PHP build is named {name}; there are {}", names()))
    }

    /// Finds a build by its name, ready to be started.
    ///
    /// # Errors
    /// When no build has that name, or when it was not fetched yet.
    pub fn fetched(name: &str) -> Result<&'static PhpBuild> {
        let build = Self::named(name)?;
        if !build.is_fetched() {
            bail!(
                "the PHP build {name} is not in {}: run `cargo xtask php {name}`",
                build.folder().display()
            );
        }
        Ok(build)
    }

    /// Where it is unpacked: for Debian's builds this is the root to `chroot` into.
    pub fn folder(&self) -> PathBuf {
        target_dir().join("php").join(self.name)
    }

    /// Whether it is there, whole, and by today's recipe.
    pub fn is_fetched(&self) -> bool {
        fs::read_to_string(self.recipe_file()).is_ok_and(|recipe| recipe == self.recipe())
    }

    /// Marks the build as whole; to be called when all of it is unpacked in its folder.
    ///
    /// # Errors
    /// When the mark cannot be written.
    pub fn mark_fetched(&self) -> Result<()> {
        let file = self.recipe_file();
        fs::write(&file, self.recipe()).with_context(|| format!("writing {}", file.display()))
    }

    /// Whether it needs a root of its own.
    pub(crate) fn is_chroot(&self) -> bool {
        matches!(self.source, Source::Debian { .. })
    }

    /// The php-fpm in it.
    ///
    /// # Errors
    /// When the build's folder holds none.
    pub fn fpm_binary(&self) -> Result<PathBuf> {
        let binary = match self.source {
            Source::Debian { .. } | Source::DebianBinary { .. } => self
                .folder()
                .join(format!("usr/sbin/php-fpm{}", self.version)),
            Source::Npm { .. } => self.folder().join("native/php/php-fpm"),
        };
        if !binary.is_file() {
            bail!(
                "{} is missing: remove {} and run `cargo xtask php {}`",
                binary.display(),
                self.folder().display(),
                self.name
            );
        }
        Ok(binary)
    }

    fn recipe_file(&self) -> PathBuf {
        self.folder().join("recipe.txt")
    }

    fn recipe(&self) -> String {
        format!("{}\n", self.source)
    }
}
