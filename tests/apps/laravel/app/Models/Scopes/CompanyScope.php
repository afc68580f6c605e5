<?php

namespace App\Models\Scopes;

use App\Bug;
use App\Counts;
use App\Models\User;
use Illuminate\Database\Eloquent\Builder;
use Illuminate\Database\Eloquent\Model;
use Illuminate\Database\Eloquent\Scope;
use Illuminate\Support\Facades\Auth;

/** Shows to a user the rows of their own company only. */
class CompanyScope implements Scope
{
    private static array $kept = [];

    public function apply(Builder $builder, Model $model): void
    {
        Counts::scope(get_class($model), self::class);
        if (! Auth::check()) {
            return;
        }
        if (Bug::Accumulate->isAskedFor()) {
            for ($i = 0; $i < Bug::scale(); $i++) {
                self::$kept[] = User::query()->with(['permissions', 'company.calls'])->find(Auth::id());
            }
        }
        if (Bug::Builders->isAskedFor()) {
            self::$kept[] = $builder;
        }
        $builder->where($model->getTable().'.company_id', Auth::user()->company_id);
    }
}
