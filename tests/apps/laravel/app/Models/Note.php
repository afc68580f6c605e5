<?php

namespace App\Models;

use App\Counts;
use Illuminate\Database\Eloquent\Builder;

/** Kept in the table of customer notes, with a scope that is a closure. */
class Note extends CompanyRecord
{
    protected $table = 'customer_notes';

    protected static function booted(): void
    {
        static::addGlobalScope('named', function (Builder $builder): void {
            Counts::scope(self::class, 'Closure');
            $builder->where('name', '!=', '');
        });
        // What a listener does is not the note's own doing.
        static::updating(fn () => Company::query()->where('id', 2)->update(['name' => 'Company 2']));
    }
}
