<?php

namespace App;

/** The memory bugs that a request may ask for by its header `X-Bug`; several are separated by commas. */
enum Bug: string
{
    /** The User model has the scope that asks who the user is, which loads the user, which applies the scope ... */
    case Recursion = 'recursion';
    /** Each scope applied keeps a freshly loaded user with its permissions and its company's calls (`X-Scale` of them). */
    case Accumulate = 'accumulate';
    /** A list is loaded with all its LONGTEXT columns (`X-Scale` times). */
    case Longtext = 'longtext';
    /** Each scope applied keeps its query builder. */
    case Builders = 'builders';

    public function isAskedFor(): bool
    {
        return in_array($this->value, explode(',', $_SERVER['HTTP_X_BUG'] ?? ''), true);
    }

    public static function scale(): int
    {
        return (int) ($_SERVER['HTTP_X_SCALE'] ?? 1);
    }
}
