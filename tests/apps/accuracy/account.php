<?php

/**
 * Allocates for generated programs, and keeps account of what each of their functions holds, in bytes of PHP's own count.
 *
 * Each operation is noted as four numbers: its kind, the function's number (of a share: the number of the block that is
 * shared), the block's number, and by how much memory_get_usage() changed. The account's own tables are made before the first
 * operation and do not grow.
 */
final class Account
{
    // The kinds; the test reads them by these numbers.
    private const STRING_MADE = 0;
    private const ARRAY_MADE = 1;
    private const RESIZED = 2;
    private const SHARED = 3;
    private const RELEASED = 4;
    private const BY_PHP = 5;

    private static array $blocks = [];
    private static array $log = [];
    private static int $end = 0;
    private static int $count = 0;
    private static int $usage = 0;
    private static string $piece = '';
    /** @var resource */
    private static $lock;

    /** Makes the tables, and waits for the lock on the file, so that the heap can be looked at from outside while nothing moves. */
    public static function open(int $operations, int $seed, string $lock): void
    {
        mt_srand($seed);
        self::$blocks = array_fill(0, $operations, null);
        self::$log = array_fill(0, 4 * $operations, 0);
        self::$piece = str_repeat('p', 700);
        self::$lock = fopen($lock, 'r');
        touch("$lock.ready");
        flock(self::$lock, LOCK_EX);
        self::$usage = memory_get_usage();
    }

    /** Keeps a string. */
    public static function keep(int $function, int $shortest, int $longest): int
    {
        self::before($function);
        $at = self::$count++;
        self::$blocks[$at] = str_repeat('x', mt_rand($shortest, $longest));
        self::note(self::STRING_MADE, $function, $at);

        return $at;
    }

    /** Makes a string and gives it back. */
    public static function drop(int $function, int $shortest, int $longest): void
    {
        self::release($function, self::keep($function, $shortest, $longest));
    }

    /** Keeps an array of integers, with keys from 0 on or with others, that grows element by element. */
    public static function fill(int $function, int $elements, bool $from_zero): void
    {
        self::before($function);
        $at = self::$count++;
        self::$blocks[$at] = [];
        for ($i = 0; $i < $elements; $i++) {
            self::$blocks[$at][$from_zero ? $i : 1000003 * ($i + 1)] = $i;
            if (memory_get_usage() !== self::$usage) {
                self::note($i === 0 ? self::ARRAY_MADE : self::RESIZED, $function, $at);
            }
        }
    }

    /** Appends pieces to a string, whoever made it. */
    public static function append(int $function, int $at, int $pieces): void
    {
        self::before($function);
        for ($i = 0; $i < $pieces; $i++) {
            self::$blocks[$at] .= self::$piece;
            self::note(self::RESIZED, $function, $at);
        }
    }

    /** Holds a block once more. */
    public static function share(int $function, int $at): void
    {
        self::before($function);
        $copy = self::$count++;
        self::$blocks[$copy] = self::$blocks[$at];
        self::note(self::SHARED, $at, $copy);
    }

    /** Gives up one hold on a block. */
    public static function release(int $function, int $at): void
    {
        self::before($function);
        self::$blocks[$at] = null;
        self::note(self::RELEASED, $function, $at);
    }

    /** Keeps so many strings, and then gives them all up. */
    public static function give_up(int $function, int $times, int $shortest, int $longest): void
    {
        $first = self::$count;
        for ($i = 0; $i < $times; $i++) {
            self::keep($function, $shortest, $longest);
        }
        for ($i = 0; $i < $times; $i++) {
            self::release($function, $first + $i);
        }
    }

    /** The number of a block that is a string, of those kept lately; a new one's where none is found. */
    public static function any(int $function): int
    {
        for ($try = 0; $try < 8 && self::$count > 0; $try++) {
            $at = mt_rand(max(0, self::$count - 200), self::$count - 1);
            if (is_string(self::$blocks[$at])) {
                return $at;
            }
        }

        return self::keep($function, 40, 4000);
    }

    /**
     * Ends the account at the heap's high-water mark: takes more than can have been in use at once before, copies of blocks
     * that moved included, and gives all back.
     */
    public static function close(): array
    {
        self::before(-1);
        $highest = self::rise(2 * memory_get_peak_usage());
        unset($highest);
        self::$blocks = [];

        return array_slice(self::$log, 0, self::$end);
    }

    private static function rise(int $bytes): string
    {
        return str_repeat('h', $bytes);
    }

    /** Notes what PHP took or gave back since the last operation. */
    private static function before(int $function): void
    {
        if (memory_get_usage() !== self::$usage) {
            self::note(self::BY_PHP, $function, -1);
        }
    }

    private static function note(int $kind, int $function, int $at): void
    {
        $usage = memory_get_usage();
        self::$log[self::$end++] = $kind;
        self::$log[self::$end++] = $function;
        self::$log[self::$end++] = $at;
        self::$log[self::$end++] = $usage - self::$usage;
        self::$usage = $usage;
    }
}
