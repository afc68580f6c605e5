//! What memprof knows of PHP frameworks: names to look out for on a stack. Pure rules; an application
//! without the framework simply has no such names.

pub mod laravel;
