//! Starts real php-fpm builds for the integration tests.
