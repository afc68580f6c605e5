<?php

namespace App\Models;

use App\Bug;
use App\Models\Scopes\CompanyScope;
use Illuminate\Database\Eloquent\Relations\BelongsTo;
use Illuminate\Database\Eloquent\Relations\HasMany;

class User extends \Illuminate\Foundation\Auth\User
{
    protected $guarded = [];

    protected static function booted(): void
    {
        if (Bug::Recursion->isAskedFor()) {
            static::addGlobalScope(new CompanyScope());
        }
    }

    public function company(): BelongsTo
    {
        return $this->belongsTo(Company::class);
    }

    public function permissions(): HasMany
    {
        return $this->hasMany(Permission::class);
    }
}
