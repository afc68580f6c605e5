<?php

namespace App\Models;

use App\Models\Concerns\BelongsToCompany;
use Illuminate\Database\Eloquent\Model;

/** What every model of the admin pages shares. */
abstract class CompanyRecord extends Model
{
    use BelongsToCompany;

    protected $guarded = [];

    protected $casts = ['meta' => 'array'];
}
