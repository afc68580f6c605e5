//! php-fpm masters, pools and workers, as /proc shows them.
