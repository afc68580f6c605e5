<?php

namespace App\Http\Middleware;

use App\Counts;
use Closure;
use Illuminate\Http\Request;

/** Tells in the answer what the application counted itself, if it was asked to. */
class CountHeader
{
    public function handle(Request $request, Closure $next)
    {
        if (! $request->hasHeader('X-Count')) {
            return $next($request);
        }
        Counts::begin();
        $response = $next($request);
        $response->headers->set('X-Counts', Counts::toJson());

        return $response;
    }
}
