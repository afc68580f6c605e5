//! The BPF programs: one file a program, and what they share.
//!
//! All of them run inside the traced worker at a uprobe, in sleepable context: memory that the
//! worker has never touched (names in opcache's shared memory) is paged in on the second try.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod atomic;
mod call;
mod class;
mod exact;
mod fastcgi;
mod freeze;
mod growth;
mod heap;
mod hit;
mod id;
mod include;
mod maps;
mod read;
mod registers;
mod repeat;
mod request;
mod resolve;
mod stack;
mod target;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // The verifier accepts no program that could get here.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
